import { isIPv6 } from "node:net";
import { posix } from "node:path";
import { SlipwayError } from "../errors/errors.ts";

/**
 * A git repository as build contexts, ADD and named contexts write it: a URL that ends in `.git`, `git://`, `ssh://`,
 * `user@host:path`, or (deprecated, contexts only) `github.com/...`; with `#ref:subdir` or a query behind it.
 */
export interface GitRef {
	/** What git is given: the URL without query and fragment. */
	readonly remote: string;
	/** The last element of the path without `.git`. */
	readonly shortName: string;
	/** A branch, tag or commit; empty for the default branch. */
	readonly ref: string;
	/** The commit that the ref must have; empty for none. */
	readonly checksum: string;
	/** A directory in the repository; empty for its root. */
	readonly subdir: string;
	/** `github.com/...`, which could as well be a directory. */
	readonly looksLocal: boolean;
	/** `http://` or `git://`. */
	readonly unencrypted: boolean;
	readonly keepGitDir?: boolean;
	readonly submodules?: boolean;
	readonly mtime?: "checkout" | "commit";
	/** The checksum is fetched as it is, the ref only names it. */
	readonly fetchByCommit: boolean;
}

/**
 * The git reference that the text is, undefined if it is none. Throws `invalid-argument` with BuildKit's message for
 * one whose query cannot be understood.
 */
export function parseGitRef(text: string): GitRef | undefined {
	const looksLocal = text.startsWith("github.com/");
	if (text.startsWith("./") || text.startsWith("../")) {
		return undefined;
	}
	const url = looksLocal ? parseRootless(text) : parseRemote(text);
	if (url === undefined) {
		return undefined;
	}
	const overHttp = url.scheme === "http" || url.scheme === "https";
	if (overHttp && !looksLocal && !url.path.endsWith(".git")) {
		return undefined;
	}
	const { remote } = url;
	const lastElement = remote.slice(remote.lastIndexOf("/") + 1);
	const [ref, subdir] = splitFragment(url.fragment);
	const base: GitRef = {
		remote,
		shortName: lastElement.endsWith(".git") ? lastElement.slice(0, -4) : lastElement,
		ref,
		checksum: "",
		subdir,
		looksLocal,
		unencrypted: url.scheme === "http" || url.scheme === "git",
		fetchByCommit: false,
	};
	return applyQuery(base, url.query);
}

/** The reference as `remote#ref:subdir`; the text itself if it is no git reference. */
export function formatGitFragment(text: string, options: { readonly withSubdir: boolean }): string {
	let ref: GitRef | undefined;
	try {
		ref = parseGitRef(text);
	} catch {
		return text;
	}
	if (ref === undefined) {
		return text;
	}
	const subdir = options.withSubdir ? cleanSubdir(ref.subdir) : "";
	const fragment = ref.ref + (subdir === "" ? "" : `:${subdir}`);
	return fragment === "" ? ref.remote : `${ref.remote}#${fragment}`;
}

interface RemoteUrl {
	readonly scheme: string;
	/** Decoded. */
	readonly path: string;
	readonly remote: string;
	readonly fragment: string;
	readonly query: ReadonlyMap<string, readonly string[]>;
}

function splitFragment(fragment: string): readonly [string, string] {
	const colon = fragment.indexOf(":");
	return colon < 0 ? [fragment, ""] : [fragment.slice(0, colon), cleanSubdir(fragment.slice(colon + 1))];
}

/** Normalized, without slashes at its ends; cannot leave the repository. */
function cleanSubdir(subdir: string): string {
	return posix.join("/", subdir).replace(/^\/|\/$/g, "");
}

function applyQuery(base: GitRef, query: RemoteUrl["query"]): GitRef {
	const found: { -readonly [Key in keyof GitRef]: GitRef[Key] } = { ...base };
	let tag = "";
	let branch = "";
	for (const [key, values] of query) {
		const value = values[0] ?? "";
		if (values.length > 1) {
			throw invalid(`query ${quote(key)} has multiple values`);
		}
		if (value === "" && !["submodules", "keep-git-dir", "fetch-by-commit"].includes(key)) {
			throw invalid(`query ${quote(key)} has no value`);
		}
		switch (key) {
			case "ref":
				found.ref = agree("ref", found.ref, value);
				break;
			case "tag":
				tag = value.startsWith("refs/tags/") ? value : `refs/tags/${value}`;
				break;
			case "branch":
				branch = value.startsWith("refs/heads/") ? value : `refs/heads/${value}`;
				break;
			case "subdir":
				found.subdir = agree("subdir", found.subdir, value);
				break;
			case "checksum":
			case "commit":
				found.checksum = value;
				break;
			case "keep-git-dir":
				found.keepGitDir = parseFlag(key, value);
				break;
			case "submodules":
				found.submodules = parseFlag(key, value);
				break;
			case "fetch-by-commit":
				found.fetchByCommit = parseFlag(key, value);
				break;
			case "mtime":
				if (value !== "checkout" && value !== "commit") {
					throw invalid(`invalid mtime value: ${quote(value)} (must be "checkout" or "commit")`);
				}
				found.mtime = value;
				break;
			default:
				throw invalid(`unexpected query ${quote(key)}`);
		}
	}
	if (tag !== "") {
		found.ref = agree("ref", found.ref, tag);
	}
	if (branch !== "") {
		if (tag !== "") {
			throw invalid("branch conflicts with tag");
		}
		found.ref = agree("ref", found.ref, branch);
	}
	return found;
}

function agree(name: string, earlier: string, value: string): string {
	if (earlier !== "" && earlier !== value) {
		throw invalid(`${name} conflicts: ${quote(earlier)} vs ${quote(value)}`);
	}
	return value;
}

/** A flag without value is true. */
function parseFlag(key: string, value: string): boolean {
	if (["", "1", "t", "T", "true", "TRUE", "True"].includes(value)) {
		return true;
	}
	if (["0", "f", "F", "false", "FALSE", "False"].includes(value)) {
		return false;
	}
	throw invalid(`invalid ${key} value: ${quote(value)}`);
}

function parseRemote(text: string): RemoteUrl | undefined {
	const scheme = /^([a-zA-Z0-9]+):\/\//.exec(text)?.[1]?.toLowerCase();
	if (scheme === undefined) {
		return parseScp(text);
	}
	return ["http", "https", "ssh", "git"].includes(scheme) ? parseUrl(text, scheme) : undefined;
}

/** `user@host:path?query#fragment`. */
function parseScp(text: string): RemoteUrl | undefined {
	const head = /^[a-zA-Z0-9_-]+@[a-zA-Z0-9.-]+:/.exec(text);
	if (head === null || text.includes("\n")) {
		return undefined;
	}
	const rest = text.slice(head[0].length);
	const [, path = "", rawQuery = "", fragment = ""] = /^([^?#]*)(?:\?([^#]*))?(?:#(.*))?$/s.exec(rest) ?? [];
	const { query, malformed } = parseQuery(rawQuery);
	return malformed ? undefined : { scheme: "ssh", path, remote: head[0] + path, fragment, query };
}

/** A URL as Go's `net/url` reads it and writes it again without query and fragment. */
function parseUrl(text: string, scheme: string): RemoteUrl | undefined {
	const parts = splitUrl(text.slice(scheme.length + 3));
	if (parts === undefined) {
		return undefined;
	}
	const slash = parts.rest.indexOf("/");
	const authority = slash < 0 ? parts.rest : parts.rest.slice(0, slash);
	const rawPath = slash < 0 ? "" : parts.rest.slice(slash);
	const at = authority.lastIndexOf("@");
	const user = at < 0 ? "" : parseUser(authority.slice(0, at));
	const host = parseHost(authority.slice(at + 1), scheme);
	const path = percentDecode(rawPath);
	if (user === undefined || host === undefined || path === undefined) {
		return undefined;
	}
	const empty = host === "" && rawPath === "" && at < 0;
	const origin = empty ? `${scheme}:` : `${scheme}://${at < 0 ? "" : `${user}@`}${host}`;
	const remote = origin + encodePath(rawPath, path) + (parts.bareQuery ? "?" : "");
	return { scheme, path, remote, fragment: parts.fragment, query: parts.query };
}

/** `github.com/...`: a path without host, shown as it is. */
function parseRootless(text: string): RemoteUrl | undefined {
	const parts = splitUrl(text);
	const path = parts === undefined ? undefined : percentDecode(parts.rest);
	if (parts === undefined || path === undefined) {
		return undefined;
	}
	const remote = encodePath(parts.rest, path) + (parts.bareQuery ? "?" : "");
	return { scheme: "https", path, remote, fragment: parts.fragment, query: parts.query };
}

interface UrlParts {
	readonly rest: string;
	/** Ends with a `?` and nothing behind it. */
	readonly bareQuery: boolean;
	readonly query: RemoteUrl["query"];
	readonly fragment: string;
}

function splitUrl(text: string): UrlParts | undefined {
	const hash = text.indexOf("#");
	const beforeFragment = hash < 0 ? text : text.slice(0, hash);
	const fragment = hash < 0 ? "" : percentDecode(text.slice(hash + 1));
	if (fragment === undefined || /[\0-\x1f\x7f]/.test(beforeFragment)) {
		return undefined;
	}
	const mark = beforeFragment.indexOf("?");
	const rawQuery = mark < 0 ? "" : beforeFragment.slice(mark + 1);
	return {
		rest: mark < 0 ? beforeFragment : beforeFragment.slice(0, mark),
		bareQuery: mark >= 0 && rawQuery === "",
		// A malformed pair of a URL is dropped without a word.
		query: parseQuery(rawQuery).query,
		fragment,
	};
}

function parseQuery(text: string): { readonly query: Map<string, string[]>; readonly malformed: boolean } {
	const query = new Map<string, string[]>();
	let malformed = false;
	for (const pair of text.split("&")) {
		if (pair === "") {
			continue;
		}
		const equals = pair.indexOf("=");
		const plain = pair.replaceAll("+", " ");
		const key = percentDecode(equals < 0 ? plain : plain.slice(0, equals));
		const value = equals < 0 ? "" : percentDecode(plain.slice(equals + 1));
		if (pair.includes(";") || key === undefined || value === undefined) {
			malformed = true;
			continue;
		}
		const values = query.get(key);
		if (values === undefined) {
			query.set(key, [value]);
		} else {
			values.push(value);
		}
	}
	return { query, malformed };
}

function parseUser(text: string): string | undefined {
	if (!/^[A-Za-z0-9\-._:~!$&'()*+,;=%@]*$/.test(text)) {
		return undefined;
	}
	const colon = text.indexOf(":");
	const name = percentDecode(colon < 0 ? text : text.slice(0, colon));
	const password = colon < 0 ? undefined : percentDecode(text.slice(colon + 1));
	if (name === undefined || (colon >= 0 && password === undefined)) {
		return undefined;
	}
	const kept = /[A-Za-z0-9\-_.~$&+,;=]/;
	return percentEncode(name, kept) + (password === undefined ? "" : `:${percentEncode(password, kept)}`);
}

function parseHost(text: string, scheme: string): string | undefined {
	const open = text.lastIndexOf("[");
	let port = "";
	if (open === 0) {
		const close = text.lastIndexOf("]");
		if (close < 0 || !isIPv6(text.slice(1, close).replace("%25", "%"))) {
			return undefined;
		}
		port = text.slice(close + 1);
	} else if (open > 0) {
		return undefined;
	} else {
		// Old URLs with colons in the host stay valid where Go lets them.
		const strict = scheme === "http" || scheme === "https";
		const colon = strict ? text.indexOf(":") : text.lastIndexOf(":");
		port = colon < 0 ? "" : text.slice(colon);
	}
	if (!/^(:[0-9]*)?$/.test(port)) {
		return undefined;
	}
	// Only bytes outside ASCII may be percent-encoded in a host, and not every character may stand there.
	if (/%(?!25)[0-7]/.test(text) || !/^[A-Za-z0-9\-_.~!$&'()*+,;=:[\]<>"%\u0080-\u{10ffff}]*$/u.test(text)) {
		return undefined;
	}
	const host = percentDecode(text);
	return host === undefined ? undefined : percentEncode(host, /[A-Za-z0-9\-_.~!$&'()*+,;=:[\]<>"]/);
}

/** A path that is valid as it was written stays so; any other is encoded anew. */
function encodePath(raw: string, decoded: string): string {
	return /^[A-Za-z0-9\-_.~!$&'()*+,;=:@[\]%/]*$/.test(raw)
		? raw
		: percentEncode(decoded, /[A-Za-z0-9\-_.~$&+,/:;=@]/);
}

function percentDecode(text: string): string | undefined {
	if (!text.includes("%")) {
		return text;
	}
	if (/%(?![0-9A-Fa-f]{2})/.test(text)) {
		return undefined;
	}
	const bytes = Buffer.from(text).toString("latin1");
	const decoded = bytes.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
		String.fromCharCode(Number.parseInt(hex, 16)),
	);
	return Buffer.from(decoded, "latin1").toString();
}

function percentEncode(text: string, kept: RegExp): string {
	let out = "";
	for (const byte of Buffer.from(text)) {
		const char = String.fromCharCode(byte);
		out += byte < 0x80 && kept.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
	}
	return out;
}

/** Go's `%q` for what can stand in a query. */
function quote(text: string): string {
	return JSON.stringify(text);
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
