import { joinPath } from "./go-path.ts";

/** The URL of a repository in parts. */
export interface GitRemote {
	readonly scheme: "http" | "https" | "ssh" | "git";
	/** With the port, without the user. */
	readonly host: string;
	/** Decoded. */
	readonly path: string;
	/** What git is given: no query, no fragment. */
	readonly remote: string;
}

const urlPattern = /^([a-zA-Z0-9]+):\/\/(?:[^/?#]*@)?([^/?#@]*)([^?#]*)/;
const scpPattern = /^[a-zA-Z0-9_-]+@([a-zA-Z0-9.-]+):([^?#]*)/;
const schemes: ReadonlySet<string> = new Set(["http", "https", "ssh", "git"]);

/** Reads a URL, or ssh's `user@host:path`; a text without a scheme is taken as https. Undefined if it is none of them. */
export function parseGitRemote(text: string): GitRemote | undefined {
	const scp = scpPattern.exec(text);
	if (scp !== null) {
		const [remote, host = "", path = ""] = scp;
		return { scheme: "ssh", host, path, remote };
	}
	const url = urlPattern.exec(/^[a-zA-Z0-9]+:\/\//.test(text) ? text : `https://${text}`);
	if (url === null) {
		return undefined;
	}
	const [whole, name = "", host = "", encodedPath = ""] = url;
	const scheme = name.toLowerCase();
	const path = decode(encodedPath);
	return path === undefined || !isGitScheme(scheme)
		? undefined
		: { scheme, host, path, remote: scheme + whole.slice(scheme.length) };
}

function isGitScheme(scheme: string): scheme is GitRemote["scheme"] {
	return schemes.has(scheme);
}

function decode(text: string): string | undefined {
	try {
		return decodeURIComponent(text);
	} catch {
		return undefined;
	}
}

/** The identifier of a git source, the same for all protocols of one repository. */
export function gitIdentifier({ host, path }: GitRemote, ref: string, subdir: string): string {
	const fragment = ref === "" && subdir === "" ? "" : `#${ref}${subdir === "" ? "" : `:${subdir}`}`;
	return host + joinPath("/", path) + fragment;
}
