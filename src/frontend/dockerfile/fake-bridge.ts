import { readFileSync } from "node:fs";
import { posix } from "node:path";
import { SlipwayError } from "../../errors/errors.ts";
import type { Definition } from "../../llb/llb.ts";
import { load } from "../../llb/load.ts";
import { parseDigest, sha256 } from "../../oci/digest.ts";
import { formatPlatform, type Platform, parsePlatform } from "../../oci/platform.ts";
import { familiarReference, parseReference } from "../../oci/reference.ts";
import type {
	FrontendBridge,
	FrontendCacheImport,
	FrontendRef,
	FrontendResult,
	FrontendWarning,
	ResolvedImageConfig,
	ResolveImageRequest,
	SolveFrontendRequest,
} from "../frontend.ts";
import { resultKeys } from "../frontend.ts";

/** An image that the fake registry knows; every name that it does not know is an image too. */
export interface FakeImage {
	readonly digest?: string;
	readonly config?: unknown;
	/** What the name is replaced by. */
	readonly ref?: string;
	/** Resolving it fails with this. */
	readonly error?: string;
}

export interface FakeBridgeOptions {
	readonly buildPlatform?: string;
	/** By full or familiar name, with `|os/arch` behind for one platform only. */
	readonly images?: Readonly<Record<string, FakeImage>>;
	/** Files of local directories: directory name, then path. */
	readonly files: Readonly<Record<string, Readonly<Record<string, Uint8Array>>>>;
	/** When sources were last changed, by identifier. */
	readonly times?: Readonly<Record<string, number>>;
	/** The file, of whatever name, that an http source gives. */
	readonly download?: Uint8Array;
	/** What other frontends answer. */
	readonly frontendError?: SlipwayError;
	/** Files of every other source. */
	readonly otherFiles?: Readonly<Record<string, Uint8Array>>;
}

export interface FakeBridge extends FrontendBridge {
	readonly warnings: FrontendWarning[];
	readonly resolved: ResolveImageRequest[];
	/** Caches that were to be looked into. */
	readonly cacheImports: FrontendCacheImport[];
	/** What other frontends were asked. */
	readonly asked: SolveFrontendRequest[];
	/** The identifiers of the sources that were looked into. */
	readonly read: string[];
}

const defaultConfig = {
	architecture: "amd64",
	os: "linux",
	config: { Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], Cmd: ["sh"] },
	rootfs: { type: "layers", diff_ids: [`sha256:${"1".repeat(64)}`] },
	history: [{ created: "2023-11-14T22:13:20Z", created_by: "base layer" }],
};

/** A builder of which only the frontend's half exists: local files, and a registry that has every image. */
export function createFakeBridge(options: FakeBridgeOptions): FakeBridge {
	const warnings: FrontendWarning[] = [];
	const resolved: ResolveImageRequest[] = [];
	const read: string[] = [];
	const asked: SolveFrontendRequest[] = [];
	const cacheImports: FrontendCacheImport[] = [];
	const unused = (): never => {
		throw new SlipwayError("unimplemented", "the fake bridge has no containers and no metadata of sources");
	};
	return {
		asked,
		cacheImports,
		worker: { id: "fake", labels: new Map() },
		resolveSource: unused,
		newContainer: unused,
		failedStep: () => undefined,
		async solveFrontend(request) {
			asked.push(request);
			if (options.frontendError !== undefined) {
				throw options.frontendError;
			}
			return { ref: undefined, refs: new Map(), metadata: {}, attestations: new Map() };
		},
		platforms: [parsePlatform(options.buildPlatform ?? "linux/amd64")],
		warnings,
		resolved,
		read,
		async solve(definition, { cacheImports: wanted = [] }) {
			cacheImports.push(...wanted);
			const identifiers = [...load(definition).ops.values()].flatMap(({ op }) =>
				op.kind === "source" ? [op.identifier] : [],
			);
			const ref = fakeRef(identifiers, options);
			return {
				...ref,
				definition,
				evaluate: async () => {},
				readFile(path, readOptions) {
					read.push(...identifiers);
					return ref.readFile(path, readOptions);
				},
			};
		},
		async resolveImage(request) {
			resolved.push(request);
			return resolveFake(request, options.images ?? {});
		},
		async sourceTime({ identifier }) {
			return options.times?.[identifier];
		},
		warn(warning) {
			warnings.push(warning);
		},
	};
}

function fakeRef(
	identifiers: readonly string[],
	{ files, download, otherFiles = {} }: FakeBridgeOptions,
): Pick<FrontendRef, "readFile" | "readDirectory" | "stat"> {
	const names = identifiers.map((each) =>
		each.startsWith("local://") ? each.slice("local://".length) : each,
	);
	const missing = (path: string): SlipwayError =>
		new SlipwayError("not-found", `open ${path}: no such file or directory`);
	return {
		async readFile(path) {
			for (const name of names) {
				const data = /^https?:/.test(name) ? download : (files[name] ?? otherFiles)[posix.normalize(path)];
				if (data !== undefined) {
					return data;
				}
			}
			throw missing(path);
		},
		async readDirectory(path) {
			throw missing(path);
		},
		async stat(path) {
			throw missing(path);
		},
	};
}

function resolveFake(
	{ ref, platform }: ResolveImageRequest,
	images: Readonly<Record<string, FakeImage>>,
): ResolvedImageConfig {
	const reference = parseReference(ref);
	const known = findFake([ref, familiarReference(reference)], platform, images);
	if (known?.error !== undefined) {
		throw new SlipwayError("not-found", known.error);
	}
	const digest = known?.digest ?? reference.digest ?? sha256(ref);
	return {
		ref: known?.ref ?? ref,
		digest: parseDigest(digest),
		config: new TextEncoder().encode(JSON.stringify(known?.config ?? defaultConfig)),
	};
}

function findFake(
	names: readonly string[],
	platform: Platform | undefined,
	images: Readonly<Record<string, FakeImage>>,
): FakeImage | undefined {
	for (const name of names) {
		const own = platform === undefined ? undefined : images[`${name}|${formatPlatform(platform)}`];
		const found = own ?? images[name];
		if (found !== undefined) {
			return found;
		}
	}
	return undefined;
}

/** What a result says about each of its platforms. */
export function platformsOf({ ref, refs, metadata }: FrontendResult): readonly {
	readonly id: string;
	readonly definition: Definition | undefined;
	readonly imageConfig: Uint8Array | undefined;
	readonly baseImageConfig: Uint8Array | undefined;
	readonly epoch: Uint8Array | undefined;
}[] {
	const list = new TextDecoder().decode(metadata[resultKeys.platforms]) || "{}";
	const { Platforms = [] } = JSON.parse(list) as { readonly Platforms?: readonly { readonly ID: string }[] };
	return Platforms.map(({ ID: id }) => {
		const suffix = refs.size > 0 ? `/${id}` : "";
		return {
			id,
			definition: (refs.size > 0 ? refs.get(id) : ref)?.definition,
			imageConfig: metadata[resultKeys.imageConfig + suffix],
			baseImageConfig: metadata[resultKeys.baseImageConfig + suffix],
			epoch: metadata[resultKeys.epoch + suffix],
		};
	});
}

/** The files of one directory on disk, by name; those that are not there are left out. */
export function readFiles(directory: string, names: readonly string[]): Record<string, Uint8Array> {
	const found: Record<string, Uint8Array> = {};
	for (const name of names) {
		try {
			found[name] = readFileSync(posix.join(directory, name));
		} catch (error) {
			if ((error as NodeJS.ErrnoException).code !== "ENOENT") {
				throw error;
			}
		}
	}
	return found;
}
