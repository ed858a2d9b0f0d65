import { SlipwayError } from "../errors/errors.ts";
import { goJson } from "../oci/go-json.ts";
import { formatReference, parseReference, withDefaultTag } from "../oci/reference.ts";
import { gitIdentifier, parseGitRemote } from "./git-remote.ts";
import type { Constraints } from "./llb.ts";
import { outputOf, sourceNode } from "./ops.ts";
import { State } from "./state.ts";

/**
 * States of files from outside. Which attributes and capabilities an op gets follows BuildKit's client; the meaning
 * of the attributes is with the sources.
 */
export interface ImageOptions extends Constraints {
	/** `pull`: always ask the registry; `local`: prefer the image store. */
	readonly resolveMode?: "default" | "pull" | "local";
	/** `internal` marks images that the builder itself needs. */
	readonly recordType?: string;
	/** Only the lowest layers. */
	readonly layerLimit?: number;
	readonly checksum?: string;
}

/** An image of a registry; the name is normalised. Throws `invalid-argument` for a name that is none. */
export function image(name: string, options: ImageOptions = {}): State {
	const attrs = new Map<string, string>();
	const caps = ["source.image"];
	if (options.resolveMode !== undefined && options.resolveMode !== "default") {
		attrs.set("image.resolvemode", options.resolveMode);
		if (options.resolveMode === "pull") {
			caps.push("source.image.resolvemode");
		}
	}
	setText(attrs, "image.recordtype", options.recordType);
	if (options.layerLimit !== undefined) {
		attrs.set("image.layerlimit", String(options.layerLimit));
		caps.push("source.image.layerlimit");
	}
	if (setText(attrs, "image.checksum", options.checksum)) {
		caps.push("source.image.checksum");
	}
	const reference = formatReference(withDefaultTag(parseReference(name)));
	return source(`docker-image://${reference}`, attrs, caps, options);
}

export interface OciLayoutOptions extends Constraints {
	/** Whose session offers the layout; absent: any of the build's. */
	readonly sessionId?: string;
	/** The layout's name in the session; absent: the name in the reference. */
	readonly storeId?: string;
	readonly layerLimit?: number;
}

/** An image of an OCI layout that a client offers; `reference` is `name@digest` or `name:tag@digest`. */
export function ociLayout(reference: string, options: OciLayoutOptions = {}): State {
	const attrs = new Map<string, string>();
	setText(attrs, "oci.session", options.sessionId);
	setText(attrs, "oci.store", options.storeId);
	if (options.layerLimit !== undefined) {
		attrs.set("oci.layerlimit", String(options.layerLimit));
	}
	return source(`oci-layout://${reference}`, attrs, ["source.ocilayout"], options);
}

/** Name, permission bits and owner of a source that is one file. */
export interface SingleFileOptions extends Constraints {
	readonly filename?: string;
	readonly perm?: number;
	readonly uid?: number;
	readonly gid?: number;
}

/** One blob of a registry as a file; the name must have a digest and no tag. */
export function imageBlob(name: string, options: SingleFileOptions = {}): State {
	const attrs = new Map<string, string>();
	setFileAttrs(attrs, options);
	return source(`docker-image+blob://${blobReference(name)}`, attrs, ["source.imageblob"], options);
}

/** One blob of an OCI layout as a file; the name must have a digest and no tag. */
export function ociLayoutBlob(
	name: string,
	options: SingleFileOptions & { readonly sessionId?: string; readonly storeId?: string } = {},
): State {
	const attrs = new Map<string, string>();
	setFileAttrs(attrs, options);
	setText(attrs, "oci.session", options.sessionId);
	setText(attrs, "oci.store", options.storeId);
	return source(`oci-layout+blob://${blobReference(name)}`, attrs, ["source.imageblob"], options);
}

function blobReference(name: string): string {
	const reference = parseReference(name);
	if (reference.tag !== undefined) {
		throw new SlipwayError("invalid-argument", "tagged image reference not allowed for blob reference");
	}
	if (reference.digest === undefined) {
		throw new SlipwayError("invalid-argument", "checksum required in blob reference");
	}
	return formatReference(reference);
}

export interface LocalOptions extends Constraints {
	/** Whose session has the directory; absent: any of the build's. */
	readonly sessionId?: string;
	/** Tells apart directories of one name when there is no session id; default: the marshal's. */
	readonly uniqueId?: string;
	readonly includePatterns?: readonly string[];
	readonly excludePatterns?: readonly string[];
	/** Paths whose symlinks are followed, so that what they point to comes along. */
	readonly followPaths?: readonly string[];
	/** Sources of equal hints share what was transferred. */
	readonly sharedKeyHint?: string;
	/** `none` transfers everything anew; `required` makes it an error if the server can't choose. */
	readonly differ?: { readonly kind: "none" | "metadata"; readonly required: boolean };
	/** Only stat data is transferred, but for the exceptions. */
	readonly metadataOnly?: { readonly exceptions: readonly string[] };
}

/** A directory of the client. */
export function local(name: string, options: LocalOptions = {}): State {
	const attrs = new Map<string, string>();
	const caps: string[] = [];
	const set = (key: string, value: string | undefined, cap: string) => {
		if (setText(attrs, key, value)) {
			caps.push(cap);
		}
	};
	set("local.session", options.sessionId, "source.local.sessionid");
	set("local.includepattern", jsonList(options.includePatterns), "source.local.includepatterns");
	set("local.followpaths", jsonList(options.followPaths), "source.local.followpaths");
	set("local.excludepatterns", jsonList(options.excludePatterns), "source.local.excludepatterns");
	set("local.sharedkeyhint", options.sharedKeyHint, "source.local.sharedkeyhint");
	if (options.differ !== undefined) {
		attrs.set("local.differ", options.differ.kind);
		if (options.differ.required) {
			caps.push("source.local.differ");
		}
	}
	if (options.metadataOnly !== undefined) {
		attrs.set("local.metadatatransfer", "true");
		setText(attrs, "local.metadatatransferexclude", jsonList(options.metadataOnly.exceptions));
		caps.push("source.local.metadatatransfer");
	}
	caps.push("source.local");
	return source(`local://${name}`, attrs, caps, options, options.uniqueId);
}

export interface GitOptions extends Constraints {
	/** Branch, tag, commit or full name; absent: the remote's default branch. */
	readonly ref?: string;
	readonly subdir?: string;
	readonly keepGitDir?: boolean;
	/** Names of the secrets with a token, or with a whole header; default `GIT_AUTH_TOKEN`, `GIT_AUTH_HEADER`. */
	readonly authTokenSecret?: string;
	readonly authHeaderSecret?: string;
	/** Lines as in ssh's known_hosts; only for ssh. */
	readonly knownSshHosts?: string;
	/** The id of the agent socket; only for ssh. */
	readonly mountSshSock?: string;
	/** The commit, or how it begins. */
	readonly checksum?: string;
	readonly skipSubmodules?: boolean;
	readonly mtime?: "checkout" | "commit";
	/** Takes `checksum` as the commit to fetch, without asking where the ref is. */
	readonly fetchByCommit?: boolean;
	/** A git bundle in a registry or OCI layout in place of the remote. */
	readonly bundle?: { readonly locator: string; readonly sessionId?: string; readonly storeId?: string };
	readonly checkoutBundle?: boolean;
}

/**
 * A git repository by its URL, whose query and fragment are not looked at. What is no git URL fails when it is built,
 * with git's words. Host keys of ssh remotes are the caller's: nothing is asked of the network here.
 */
export function git(url: string, options: GitOptions = {}): State {
	const remote = parseGitRemote(url);
	const attrs = new Map<string, string>();
	const caps: string[] = [];
	const set = (key: string, value: string | undefined, cap: string) => {
		if (setText(attrs, key, value)) {
			caps.push(cap);
		}
	};
	const yes = (condition: boolean | undefined) => (condition ? "true" : "");
	set("git.keepgitdir", yes(options.keepGitDir), "source.git.keepgitdir");
	set("git.fullurl", remote?.remote ?? url, "source.git.fullurl");
	setText(attrs, "git.authtokensecret", options.authTokenSecret ?? "GIT_AUTH_TOKEN");
	setText(attrs, "git.authheadersecret", options.authHeaderSecret ?? "GIT_AUTH_HEADER");
	const ownAuth = options.authTokenSecret !== undefined || options.authHeaderSecret !== undefined;
	if (ownAuth && (attrs.has("git.authtokensecret") || attrs.has("git.authheadersecret"))) {
		caps.push("source.git.httpauth");
	}
	if (remote?.scheme === "ssh") {
		setText(attrs, "git.knownsshhosts", options.knownSshHosts);
		attrs.set("git.mountsshsock", options.mountSshSock || "default");
		caps.push("source.git.knownsshhosts", "source.git.mountsshsock");
	}
	set("git.checksum", options.checksum, "source.git.checksum");
	set("git.skipsubmodules", yes(options.skipSubmodules), "source.git.skipsubmodules");
	set("git.mtime", options.mtime, "source.git.mtime");
	set("git.fetchbycommit", yes(options.fetchByCommit), "source.git.fetchbycommit");
	set("git.bundle", options.bundle?.locator, "source.git.bundle");
	setText(attrs, "oci.session", options.bundle?.sessionId);
	setText(attrs, "oci.store", options.bundle?.storeId);
	set("git.checkoutbundle", yes(options.checkoutBundle), "source.git.checkoutbundle");
	caps.push("source.git");
	const identifier =
		remote === undefined ? url : gitIdentifier(remote, options.ref ?? "", options.subdir ?? "");
	return source(`git://${identifier}`, attrs, caps, options);
}

export interface HttpOptions extends SingleFileOptions {
	readonly checksum?: string;
	/** The name of the secret with the Authorization header. */
	readonly authHeaderSecret?: string;
	readonly header?: { readonly accept?: string; readonly userAgent?: string };
	/** OpenPGP, armoured. */
	readonly signature?: { readonly pubKey: string; readonly signature: string };
}

/** A file behind an http or https URL. */
export function http(url: string, options: HttpOptions = {}): State {
	const attrs = new Map<string, string>();
	const caps: string[] = [];
	if (setText(attrs, "http.checksum", options.checksum)) {
		caps.push("source.http.checksum");
	}
	setFileAttrs(attrs, options);
	if (attrs.has("http.perm")) {
		caps.push("source.http.perm");
	}
	if (attrs.has("http.uid") || attrs.has("http.gid")) {
		// The misspelling is part of the protocol.
		caps.push("soruce.http.uidgid");
	}
	if (setText(attrs, "http.authheadersecret", options.authHeaderSecret)) {
		caps.push("source.http.auth");
	}
	if (options.header !== undefined) {
		setText(attrs, "http.header.accept", options.header.accept);
		setText(attrs, "http.header.user-agent", options.header.userAgent);
		caps.push("source.http.header");
	}
	if (options.signature !== undefined) {
		setText(attrs, "http.sig.pubkey", options.signature.pubKey);
		setText(attrs, "http.sig.signature", options.signature.signature);
		caps.push("source.http.signatureverify");
	}
	caps.push("source.http");
	return source(url, attrs, caps, options);
}

function setFileAttrs(attrs: Map<string, string>, options: SingleFileOptions): void {
	setText(attrs, "http.filename", options.filename);
	const perm = (options.perm ?? 0) & 0o777;
	if (perm !== 0) {
		attrs.set("http.perm", `0${perm.toString(8)}`);
	}
	if (options.uid) {
		attrs.set("http.uid", String(options.uid));
	}
	if (options.gid) {
		attrs.set("http.gid", String(options.gid));
	}
}

/** Sets the attribute unless it would be empty; true if it was set. */
function setText(attrs: Map<string, string>, key: string, value: string | undefined): boolean {
	if (value === undefined || value === "") {
		return false;
	}
	attrs.set(key, value);
	return true;
}

function jsonList(list: readonly string[] | undefined): string {
	return list === undefined || list.length === 0 ? "" : goJson(list);
}

function source(
	identifier: string,
	attrs: ReadonlyMap<string, string>,
	caps: readonly string[],
	constraints: Constraints,
	uniqueId?: string,
): State {
	const node = sourceNode(identifier, {
		attrs,
		caps,
		constraints,
		...(uniqueId === undefined || uniqueId === "" ? {} : { uniqueId }),
	});
	const { platform } = constraints;
	return new State(undefined).withOutput(outputOf(node, 0, platform));
}
