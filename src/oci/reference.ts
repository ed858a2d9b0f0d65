import { SlipwayError } from "../errors/errors.ts";
import { type Digest, isDigest } from "./digest.ts";

/**
 * The name of an image: `[domain/]path[:tag][@digest]`, as the Go library distribution/reference reads it, with its
 * messages. Always normalised: the domain is present, and Docker Hub's short names have their full form
 * (`alpine` is domain `docker.io`, path `library/alpine`).
 */
export interface Reference {
	readonly domain: string;
	readonly path: string;
	readonly tag?: string;
	readonly digest?: Digest;
}

const defaultDomain = "docker.io";
const legacyDefaultDomain = "index.docker.io";
const officialPrefix = "library/";
const defaultTag = "latest";
const maxPathLength = 255;

const domainLabel = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?";
const domainPart = `(?:${domainLabel}(?:\\.${domainLabel})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?`;
const pathPart = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
const remoteName = `${pathPart}(?:/${pathPart})*`;
const tagPart = "\\w[\\w.-]{0,127}";
const digestPart = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";

const namePattern = new RegExp(`^(?:(${domainPart})/)?(${remoteName})$`);
const referencePattern = new RegExp(
	`^((?:${domainPart}/)?${remoteName})(?::(${tagPart}))?(?:@(${digestPart}))?$`,
);
const tagPattern = new RegExp(`^${tagPart}$`);

/** Reads a name as a user writes it (`alpine`, `host:5000/a/b:tag@sha256:…`). Throws `invalid-argument`. */
export function parseReference(text: string): Reference {
	if (/^[a-f0-9]{64}$/.test(text)) {
		throw invalid(`invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`);
	}
	const [domain, remainder] = splitDomain(text);
	const colon = remainder.indexOf(":");
	const remote = colon === -1 ? remainder : remainder.slice(0, colon);
	if (remote.toLowerCase() !== remote) {
		throw invalid(`invalid reference format: repository name (${remote}) must be lowercase`);
	}
	return parseFull(`${domain}/${remainder}`);
}

function parseFull(text: string): Reference {
	const [, name = "", tag, digest] = referencePattern.exec(text) ?? [];
	const [, domain, path] = namePattern.exec(name) ?? [];
	if (domain === undefined || path === undefined) {
		throw invalid(
			referencePattern.test(text.toLowerCase())
				? "repository name must be lowercase"
				: "invalid reference format",
		);
	}
	if (path.length > maxPathLength) {
		throw invalid(`repository name must not be more than ${maxPathLength} characters`);
	}
	return {
		domain,
		path,
		...(tag === undefined ? {} : { tag }),
		...(digest === undefined ? {} : { digest: checkDigest(digest) }),
	};
}

/** With the messages of Go's digest package, which differ from those of our own `parseDigest`. */
function checkDigest(text: string): Digest {
	if (isDigest(text)) {
		return text;
	}
	const algorithm = text.slice(0, text.indexOf(":"));
	const length = { sha256: 64, sha384: 96, sha512: 128 }[algorithm];
	if (length === undefined) {
		const isWellFormed = /^[a-z0-9]+(?:[.+_-][a-z0-9]+)*$/.test(algorithm);
		throw invalid(isWellFormed ? "unsupported digest algorithm" : "invalid checksum digest format");
	}
	throw invalid(
		text.length - algorithm.length - 1 === length
			? "invalid checksum digest format"
			: "invalid checksum digest length",
	);
}

/** The first part is a domain if it looks like one: a dot, a port, upper case, or `localhost`. */
function splitDomain(text: string): readonly [domain: string, remainder: string] {
	const slash = text.indexOf("/");
	const first = text.slice(0, Math.max(slash, 0));
	const rest = text.slice(slash + 1);
	const isDomain =
		slash !== -1 && (first === "localhost" || /[.:]/.test(first) || first.toLowerCase() !== first);
	const domain = !isDomain || first === legacyDefaultDomain ? defaultDomain : first;
	const remainder = isDomain ? rest : text;
	return [
		domain,
		domain === defaultDomain && !remainder.includes("/") ? officialPrefix + remainder : remainder,
	];
}

/** `domain/path`. */
export function referenceName(reference: Reference): string {
	return `${reference.domain}/${reference.path}`;
}

/** The full text; `parseReference` reads it back. */
export function formatReference(reference: Reference): string {
	return referenceName(reference) + suffix(reference);
}

/** The name as Docker shows it: without `docker.io/` and `library/`. */
export function familiarName({ domain, path }: Reference): string {
	if (domain !== defaultDomain) {
		return `${domain}/${path}`;
	}
	const isOfficial = path.startsWith(officialPrefix) && !path.includes("/", officialPrefix.length);
	return isOfficial ? path.slice(officialPrefix.length) : path;
}

/** `familiarName` with tag and digest. */
export function familiarReference(reference: Reference): string {
	return familiarName(reference) + suffix(reference);
}

function suffix({ tag, digest }: Reference): string {
	return (tag === undefined ? "" : `:${tag}`) + (digest === undefined ? "" : `@${digest}`);
}

/** Adds the tag `latest` to a reference that has neither tag nor digest. */
export function withDefaultTag(reference: Reference): Reference {
	return reference.tag === undefined && reference.digest === undefined
		? { ...reference, tag: defaultTag }
		: reference;
}

/** Throws `invalid-argument` if the tag is not one. */
export function withTag(reference: Reference, tag: string): Reference {
	if (!tagPattern.test(tag)) {
		throw invalid("invalid tag format");
	}
	return { ...reference, tag };
}

export function withDigest(reference: Reference, digest: Digest): Reference {
	return { ...reference, digest };
}

/** Only domain and path. */
export function withoutTagAndDigest({ domain, path }: Reference): Reference {
	return { domain, path };
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
