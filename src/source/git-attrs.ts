import { SlipwayError } from "../errors/errors.ts";
import type { SourceRequest } from "./source.ts";

/** A tree of a git repository as the build asks for it. */
export interface GitTree {
	/** What git is given: a URL, or ssh's `user@host:path`. Never begins with a dash. */
	readonly remote: string;
	/** Branch, tag, full name or commit; empty is the default branch. Never begins with a dash. */
	readonly ref: string;
	/** Relative, without `.` and `..`; empty is the whole tree. */
	readonly subdir: string;
	/** How the commit, or the annotated tag's object, begins; lower-case hex, empty is any. */
	readonly checksum: string;
	readonly keepGitDir: boolean;
	readonly skipSubmodules: boolean;
	/** Times of the files: of the checkout, or of the commit. */
	readonly mtime: "checkout" | "commit";
	/** `checksum` is the whole commit and the server is not asked where the ref is. */
	readonly fetchByCommit: boolean;
	/** Names of secrets; empty is none. */
	readonly authTokenSecret: string;
	readonly authHeaderSecret: string;
	/** Lines as in ssh's known_hosts; empty: any host key is taken. */
	readonly knownSshHosts: string;
	/** The id of the client's agent; empty is none. */
	readonly mountSshSock: string;
}

const scheme = "git://";

/** What asks for bundles or signatures; these answer with an error, since ignoring them would weaken what was asked. */
const unsupported: Readonly<Record<string, string>> = {
	"git.bundle": "git bundles",
	"git.checkoutbundle": "checking out as a git bundle",
	"git.sig.pubkey": "verifying signatures of git commits",
	"git.sig.rejectexpired": "verifying signatures of git commits",
	"git.sig.requiresignedtag": "verifying signatures of git commits",
	"git.sig.ignoresignedtag": "verifying signatures of git commits",
};

export function parseGitTree({ identifier, attrs }: SourceRequest): GitTree {
	for (const [key, what] of Object.entries(unsupported)) {
		const value = attrs[key];
		if (value !== undefined && value !== "" && value !== "false") {
			throw new SlipwayError("unimplemented", `${what} (${key}) is not supported`);
		}
	}
	const url = withScheme(identifier.startsWith(scheme) ? identifier.slice(scheme.length) : identifier);
	const hash = url.indexOf("#");
	const fragment = decodeFragment(hash === -1 ? "" : url.slice(hash + 1), identifier);
	const colon = fragment.indexOf(":");
	const remote = attrs["git.fullurl"];
	const checksum = attrs["git.checksum"] ?? "";
	if (checksum !== "" && !/^[a-fA-F0-9]+$/.test(checksum)) {
		throw new SlipwayError(
			"invalid-argument",
			`invalid checksum ${checksum} for Git URL, expected hex commit hash`,
		);
	}
	return {
		remote: checkRemote(remote === undefined ? url.replace(/[?#].*$/s, "") : withScheme(remote)),
		ref: checkRef(colon === -1 ? fragment : fragment.slice(0, colon)),
		subdir: colon === -1 ? "" : cleanSubdir(fragment.slice(colon + 1)),
		checksum: checksum.toLowerCase(),
		keepGitDir: attrs["git.keepgitdir"] === "true",
		skipSubmodules: attrs["git.skipsubmodules"] === "true",
		mtime: parseMtime(attrs["git.mtime"] ?? ""),
		fetchByCommit: attrs["git.fetchbycommit"] === "true",
		authTokenSecret: attrs["git.authtokensecret"] ?? "",
		authHeaderSecret: attrs["git.authheadersecret"] ?? "",
		knownSshHosts: attrs["git.knownsshhosts"] ?? "",
		mountSshSock: attrs["git.mountsshsock"] ?? "",
	};
}

/** Object names of SHA-1 and SHA-256 repositories. */
export function isCommitSha(text: string): boolean {
	return /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(text);
}

/**
 * What is not one of the four protocols becomes https, so that no text makes git read local files (`file://`, a path) or run a
 * program (`ext::`).
 */
function withScheme(remote: string): string {
	return /^(?:https?|ssh|git):\/\//i.test(remote) || /^[a-zA-Z0-9_-]+@[a-zA-Z0-9.-]+:/.test(remote)
		? remote
		: `https://${remote}`;
}

/** The remote stands in git's command line, where a dash would make it an option, and in its configuration. */
function checkRemote(remote: string): string {
	if (remote.startsWith("-") || /[\p{Cc}]/u.test(remote)) {
		throw new SlipwayError("invalid-argument", `invalid git remote ${JSON.stringify(remote)}`);
	}
	return remote;
}

/** The same for a name that the server gives. */
export function checkBranch(branch: string): string {
	if (/[:*?[\\^~]|\.\.|@\{/.test(branch)) {
		throw new SlipwayError("data-loss", `invalid git branch ${JSON.stringify(branch)} named by the server`);
	}
	return checkRef(branch);
}

function checkRef(ref: string): string {
	if (ref.startsWith("-") || /[\p{Cc}]/u.test(ref)) {
		throw new SlipwayError("invalid-argument", `invalid git ref ${JSON.stringify(ref)}`);
	}
	return ref;
}

function decodeFragment(fragment: string, identifier: string): string {
	try {
		return decodeURIComponent(fragment);
	} catch (cause) {
		throw new SlipwayError("invalid-argument", `invalid escape in git source ${JSON.stringify(identifier)}`, {
			cause,
		});
	}
}

function cleanSubdir(subdir: string): string {
	const parts: string[] = [];
	for (const part of subdir.split("/")) {
		if (part === "..") {
			parts.pop();
		} else if (part !== "" && part !== ".") {
			parts.push(part);
		}
	}
	return parts.join("/");
}

function parseMtime(text: string): GitTree["mtime"] {
	switch (text) {
		case "":
		case "checkout":
			return "checkout";
		case "commit":
			return text;
		default:
			throw new SlipwayError(
				"invalid-argument",
				`invalid git.mtime ${JSON.stringify(text)}, expected "checkout" or "commit"`,
			);
	}
}
