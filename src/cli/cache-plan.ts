import { statSync } from "node:fs";
import { resolve } from "node:path";
import type { ContentReader } from "../content/content.ts";
import type { BuildResponse } from "../control/control.ts";
import { SlipwayError, toError } from "../errors/errors.ts";
import { csvFields } from "../oci/csv-fields.ts";
import { isDigest } from "../oci/digest.ts";
import { type LayoutCache, openLayoutCache } from "../session/layout-cache.ts";
import type { BlobWriter } from "../session/session.ts";
import { makeDirectories } from "../sys/make-directories.ts";
import { parseBool, parseTypeAndAttrs } from "./flags.ts";
import type { Terminal } from "./terminal.ts";

/** A cache as a client names it: `type=registry,ref=…`. */
export interface CacheEntry {
	readonly type: string;
	readonly attrs: Readonly<Record<string, string>>;
}

export interface CachePlan {
	readonly imports: readonly CacheEntry[];
	readonly exports: readonly CacheEntry[];
	readonly mountImports: readonly CacheEntry[];
	readonly mountExports: readonly CacheEntry[];
	/** What the builder reads and writes directories by. */
	readonly contentStores: Readonly<Record<string, ContentReader>>;
	readonly contentWriters: Readonly<Record<string, BlobWriter>>;
	/** Names what was exported in the directories' indexes. */
	finish(response: BuildResponse): Promise<void>;
}

export interface CacheRequest {
	/** `--cache-from` and `--cache-to`. */
	readonly from: readonly string[];
	readonly to: readonly string[];
	/** `--cache-mount-from` and `--cache-mount-to`. */
	readonly mountsFrom?: readonly string[];
	readonly mountsTo?: readonly string[];
	readonly buildArgs: ReadonlyMap<string, string>;
	readonly terminal: Pick<Terminal, "cwd" | "env" | "stderr">;
}

/** What is kept in a directory, by the keys of the response. */
const localKinds = {
	"cache.manifest": "latest",
	"cache-mounts.manifest": "mounts",
} as const;
type LocalKind = keyof typeof localKinds;

export function planCaches({
	from,
	to,
	mountsFrom = [],
	mountsTo = [],
	buildArgs,
	terminal,
}: CacheRequest): CachePlan {
	const contentStores: Record<string, ContentReader> = {};
	const contentWriters: Record<string, BlobWriter> = {};
	const written: {
		readonly cache: LayoutCache;
		readonly kind: LocalKind;
		readonly tag: string;
		readonly reset: boolean;
	}[] = [];
	const warn = (message: string): void => void terminal.stderr.write(`WARNING: ${message}\n`);
	const prepared = (specs: readonly string[]): readonly CacheEntry[] =>
		specs
			.flatMap(parseCacheEntries)
			.map((entry) => withEnvironment(entry, terminal.env))
			.filter(isUsable);

	const planImport = (entry: CacheEntry, kind: LocalKind): readonly CacheEntry[] => {
		if (entry.type === "registry" && !entry.attrs["ref"]) {
			throw invalid("registry cache importer requires ref");
		}
		if (entry.type !== "local") {
			return [entry];
		}
		const directory = resolve(terminal.cwd, required(entry, "src", "local cache importer requires src"));
		const found = findLocal(directory, entry, localKinds[kind]);
		if (typeof found === "string") {
			warn(`local cache import at ${directory} ${found}`);
			return [];
		}
		contentStores[`local:${directory}`] = found.cache.reader;
		return [{ type: "local", attrs: { ...entry.attrs, src: directory, digest: found.digest } }];
	};
	const planExport = (entry: CacheEntry, kind: LocalKind): CacheEntry => {
		if (entry.type === "registry" && !entry.attrs["ref"]) {
			throw invalid("registry cache exporter requires ref");
		}
		if (entry.type !== "local") {
			return entry;
		}
		const directory = resolve(terminal.cwd, required(entry, "dest", "local cache exporter requires dest"));
		makeDirectories(directory);
		const cache = openLayoutCache(directory);
		contentWriters[`local:${directory}`] = cache.writer;
		const { reset, tag = localKinds[kind] } = entry.attrs;
		written.push({
			cache,
			kind,
			tag,
			reset: reset !== undefined && parseBool("cache-to reset", reset) === "true",
		});
		return { type: "local", attrs: { ...entry.attrs, dest: directory } };
	};
	const imports = prepared(from).flatMap((entry) => planImport(entry, "cache.manifest"));
	const exports = prepared(to).map((entry) => planExport(entry, "cache.manifest"));
	const mountImports = prepared(mountsFrom).flatMap((entry) => planImport(entry, "cache-mounts.manifest"));
	const mountExports = prepared(mountsTo).map((entry) => planExport(entry, "cache-mounts.manifest"));
	const refs = exports.map(({ type, attrs }) => (type === "registry" ? attrs["ref"] : undefined));
	const both = mountExports.find(({ type, attrs }) => type === "registry" && refs.includes(attrs["ref"]));
	if (both !== undefined) {
		throw invalid(
			`--cache-to and --cache-mount-to can't both write ${both.attrs["ref"]}: give one another tag`,
		);
	}
	const wantsInline = parseInlineArgument(buildArgs.get("BUILDKIT_INLINE_CACHE"));
	return {
		imports,
		exports:
			wantsInline && !exports.some(({ type }) => type === "inline")
				? [...exports, { type: "inline", attrs: {} }]
				: exports,
		mountImports,
		mountExports,
		contentStores,
		contentWriters,
		finish: async ({ exporterResponse }) => {
			for (const { cache, kind, tag, reset } of written) {
				const descriptor = exporterResponse[kind];
				if (descriptor !== undefined && (await cache.writer.has(digestIn(descriptor)))) {
					await cache.setTag(descriptor, tag);
				}
				if (reset) {
					cache.sweep();
				}
			}
		},
	};
}

/** buildx's syntax: `ref,ref,…`, or `type=…,key=value,…`. */
export function parseCacheEntries(spec: string): readonly CacheEntry[] {
	const fields = csvFields(spec);
	if (!spec.includes("=")) {
		return fields.map((ref) => ({ type: "registry", attrs: { ref } }));
	}
	const { type, attrs } = parseTypeAndAttrs(fields);
	if (type === "") {
		throw invalid(`type required form> ${JSON.stringify(spec)}`);
	}
	return [{ type, attrs }];
}

/** What a CI system gives its steps, unless the entry says otherwise. */
function withEnvironment({ type, attrs }: CacheEntry, env: Terminal["env"]): CacheEntry {
	const filled: Record<string, string> = { ...attrs };
	const fill = (key: string, ...names: readonly string[]): void => {
		const value = names.map((name) => env[name]).find((each) => each !== undefined && each !== "");
		if (filled[key] === undefined && value !== undefined) {
			filled[key] = value;
		}
	};
	if (type === "gha") {
		const isSecond =
			attrs["version"] === undefined
				? /^(?:1|t|true)$/i.test(env["ACTIONS_CACHE_SERVICE_V2"] ?? "")
				: attrs["version"] === "2";
		fill("token", "ACTIONS_RUNTIME_TOKEN");
		if (isSecond) {
			fill("url_v2", "ACTIONS_RESULTS_URL");
		}
		fill("url", "ACTIONS_CACHE_URL", "ACTIONS_RESULTS_URL");
	}
	if (type === "s3" && !(attrs["access_key_id"] && attrs["secret_access_key"])) {
		fill("access_key_id", "AWS_ACCESS_KEY_ID");
		fill("secret_access_key", "AWS_SECRET_ACCESS_KEY");
		fill("session_token", "AWS_SESSION_TOKEN");
	}
	return { type, attrs: filled };
}

/** Outside of GitHub's runners its cache is silently not there, so that the same command works everywhere. */
function isUsable({ type, attrs }: CacheEntry): boolean {
	return type !== "gha" || (Boolean(attrs["token"]) && Boolean(attrs["url"] || attrs["url_v2"]));
}

/** The cache in a directory, or why it is not used: that is no reason not to build. */
function findLocal(
	directory: string,
	{ attrs }: CacheEntry,
	defaultTag: string,
): { readonly cache: LayoutCache; readonly digest: string } | string {
	const { digest: given = "", tag = defaultTag } = attrs;
	if (given === "" && tag === "") {
		throw invalid(
			'local cache importer requires either explicit digest, "latest" tag or custom tag on index.json',
		);
	}
	if (statSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true) {
		return "not found";
	}
	const cache = openLayoutCache(directory);
	if (given !== "") {
		return isDigest(given) ? { cache, digest: given } : `skipped: invalid digest ${JSON.stringify(given)}`;
	}
	try {
		const digest = cache.find(tag);
		return digest === undefined ? `skipped: no digest found for tag ${tag}` : { cache, digest };
	} catch (error) {
		return `skipped due to err: ${toError(error).message}`;
	}
}

function parseInlineArgument(value: string | undefined): boolean {
	if (value === undefined) {
		return false;
	}
	if (/^(?:1|t|true)$/i.test(value)) {
		return true;
	}
	if (/^(?:0|f|false)$/i.test(value)) {
		return false;
	}
	throw invalid(`failed to parse BUILDKIT_INLINE_CACHE value ${JSON.stringify(value)} as a boolean`);
}

function digestIn(descriptor: string): string {
	return (JSON.parse(descriptor) as { readonly digest: string }).digest;
}

function required({ attrs }: CacheEntry, key: string, message: string): string {
	const value = attrs[key];
	if (value === undefined || value === "") {
		throw invalid(message);
	}
	return value;
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
