import { SlipwayError } from "../errors/errors.ts";
import { sha256 } from "../oci/digest.ts";
import { goJson } from "../oci/go-json.ts";
import type { SourceRequest } from "./source.ts";

/** What a `local://` source asks for. Lists that nobody gave are undefined: Go's nil, which has its own JSON. */
export interface LocalAttributes {
	/** The client's name of the directory. */
	readonly name: string;
	/** The client to ask; undefined: any of the job. */
	readonly sessionId: string | undefined;
	readonly includePatterns: readonly string[] | undefined;
	readonly excludePatterns: readonly string[] | undefined;
	readonly followPaths: readonly string[] | undefined;
	readonly sharedKeyHint: string;
	readonly differ: "metadata" | "none";
}

const scheme = "local://";

/** Throws `invalid-argument` naming the attribute. Unknown ones, and `local.unique`, only make the vertex another one. */
export function parseLocalAttributes({ identifier, attrs }: SourceRequest): LocalAttributes {
	if (!identifier.startsWith(scheme)) {
		throw new SlipwayError("invalid-argument", `failed to parse ${identifier}`);
	}
	if (parseFlag(attrs["local.metadatatransfer"])) {
		throw new SlipwayError(
			"unimplemented",
			`local.metadatatransfer of ${identifier}: transfer of metadata alone is not supported`,
		);
	}
	const session = attrs["local.session"] ?? "";
	const colon = session.indexOf(":");
	const name = identifier.slice(scheme.length);
	const sessionId = session.slice(colon + 1);
	return {
		name: colon === -1 ? name : `${session.slice(0, colon)}-${name}`,
		sessionId: sessionId === "" ? undefined : sessionId,
		includePatterns: parseList(attrs, "local.includepattern"),
		excludePatterns: parseList(attrs, "local.excludepatterns"),
		followPaths: parseList(attrs, "local.followpaths"),
		sharedKeyHint: attrs["local.sharedkeyhint"] ?? "",
		differ: parseDiffer(attrs["local.differ"]),
	};
}

/** `session:<name>:<digest>`, as BuildKit makes it. */
export function localCacheKey(attributes: LocalAttributes, sessionId: string): string {
	const json = goJson({
		SessionID: sessionId,
		IncludePatterns: attributes.includePatterns ?? null,
		ExcludePatterns: attributes.excludePatterns ?? null,
		FollowPaths: attributes.followPaths ?? null,
	});
	return `session:${attributes.name}:${sha256(json)}`;
}

function parseList(
	attrs: Readonly<Record<string, string>>,
	attribute: string,
): readonly string[] | undefined {
	const text = attrs[attribute];
	if (text === undefined) {
		return undefined;
	}
	let value: unknown;
	try {
		value = JSON.parse(text);
	} catch (thrown) {
		throw new SlipwayError("invalid-argument", `invalid JSON in ${attribute}: ${JSON.stringify(text)}`, {
			cause: thrown,
		});
	}
	if (value === null) {
		return undefined;
	}
	if (!Array.isArray(value) || !value.every((item) => typeof item === "string")) {
		throw new SlipwayError(
			"invalid-argument",
			`${attribute} must be a list of strings, not ${JSON.stringify(text)}`,
		);
	}
	return value;
}

function parseDiffer(text: string | undefined): "metadata" | "none" {
	switch (text) {
		case undefined:
		case "":
		case "metadata":
			return "metadata";
		case "none":
			return "none";
		default:
			throw new SlipwayError("invalid-argument", `invalid value for local.differ ${JSON.stringify(text)}`);
	}
}

/** The words of Go's `strconv.ParseBool`. */
function parseFlag(text: string | undefined): boolean {
	if (text === undefined || /^(0|f|F|false|FALSE|False)$/.test(text)) {
		return false;
	}
	if (/^(1|t|T|true|TRUE|True)$/.test(text)) {
		return true;
	}
	throw new SlipwayError(
		"invalid-argument",
		`invalid value for local.metadatatransfer ${JSON.stringify(text)}`,
	);
}
