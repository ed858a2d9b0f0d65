import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createArchiver } from "../archive/archiver.ts";
import { encodeHeader, endOfArchive, tarHeader } from "../archive/tar-writer.ts";
import { createThreadPool } from "../async/pool.ts";
import type { BlobOptions, ImmutableRef, LayerBlob, RefId } from "../cache/cache.ts";
import { createBlobSources } from "../content/blob-sources.ts";
import { chunksOf } from "../content/bytes.ts";
import type { ImageStore, StoredImage } from "../content/image-store.ts";
import { openLocalContentStore } from "../content/local.ts";
import { openDatabase } from "../database/database.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import { layerMediaType } from "../oci/media-types.ts";
import { parsePlatform } from "../oci/platform.ts";
import type { ProgressEvent } from "../progress/progress.ts";
import { createRegistryAuth, noCredentials } from "../registry/auth.ts";
import { createRegistryClient } from "../registry/client.ts";
import type { OutputStore, OutputStream, Session, SessionOutput } from "../session/session.ts";
import type { BuildResult, ExportContext, ExporterServices, PlatformResult } from "./exporter.ts";

/** What the tests of this room share: services over a temporary directory, refs without a cache, a client in memory. */

export const never: AbortSignal = new AbortController().signal;

export interface TestServices extends ExporterServices, AsyncDisposable {
	readonly directory: string;
	readonly stored: Map<string, StoredImage>;
	readonly mounted: string[];
}

export async function createTestServices(): Promise<TestServices> {
	const directory = mkdtempSync(join(tmpdir(), "slipway-exporter-"));
	const pool = createThreadPool({ size: 2 });
	const stored = new Map<string, StoredImage>();
	const registry = createRegistryClient({ retry: { attempts: 1 } });
	// Beside the directory, whose entries tests look at.
	const database = openDatabase(`${directory}.db`);
	const mounted: string[] = [];
	const images: ImageStore = {
		get: (name) => stored.get(name),
		put: (name, descriptor) => {
			const image = { name, descriptor, createdAt: 0, updatedAt: 0 };
			stored.set(name, image);
			return image;
		},
		delete: (name) => stored.delete(name),
		list: () => [...stored.values()],
	};
	return {
		directory,
		content: await openLocalContentStore({ root: join(directory, "content"), signal: never }),
		images,
		sources: createBlobSources(database),
		openRepository: (name, { insecure }) =>
			registry.repository(name, { auth: createRegistryAuth(noCredentials), insecure }),
		archiver: createArchiver(pool),
		pool,
		mountTree: ([mount]) => {
			const path = mount?.source ?? "";
			mounted.push(path);
			return { path, [Symbol.dispose]: () => void mounted.splice(mounted.indexOf(path), 1) };
		},
		now: () => 1_700_000_000_500,
		stored,
		mounted,
		async [Symbol.asyncDispose]() {
			await pool[Symbol.asyncDispose]();
			await registry[Symbol.asyncDispose]();
			database[Symbol.dispose]();
			for (const suffix of ["", "-shm", "-wal"]) {
				rmSync(`${directory}.db${suffix}`, { force: true });
			}
			rmSync(directory, { recursive: true });
		},
	};
}

/** A layer's tar with one file. */
export function layerTar(name: string, text: string, modifiedSeconds = 1_700_000_000): Uint8Array {
	const data = Buffer.from(text);
	const header = tarHeader({
		kind: "file",
		name,
		mode: 0o644,
		size: data.length,
		modified: { seconds: modifiedSeconds, nanoseconds: 0 },
	});
	const padding = Buffer.alloc((512 - (data.length % 512)) % 512);
	return Buffer.concat([encodeHeader(header), data, padding, endOfArchive]);
}

export interface TestLayer {
	readonly digest: Digest;
	readonly size: number;
	/** Undefined for a layer of which only the descriptor is looked at. */
	readonly bytes?: Uint8Array;
	readonly annotations?: Readonly<Record<string, string>>;
	readonly mediaType?: string;
	readonly urls?: readonly string[];
	readonly createdAt?: number;
	readonly description?: string;
}

export function layerOf(bytes: Uint8Array): TestLayer {
	return { digest: sha256(bytes), size: bytes.length, bytes };
}

/** A ref with uncompressed layers, which are fetched on demand, and perhaps a directory with its files. */
export function fakeRef(layers: readonly TestLayer[], directory?: string): ImmutableRef {
	const blobs = async (options: BlobOptions): Promise<readonly LayerBlob[]> =>
		layers.map((layer) => ({
			descriptor: {
				mediaType: layer.mediaType ?? layerMediaType("uncompressed", "oci"),
				digest: layer.digest,
				size: layer.size,
				...(layer.annotations === undefined ? {} : { annotations: layer.annotations }),
				...(layer.urls === undefined ? {} : { urls: layer.urls }),
			},
			diffId: layer.digest,
			createdAt: layer.createdAt ?? 1_700_000_001_250,
			description: layer.description ?? "",
			provider: { read: () => chunksOf(layer.bytes ?? fail(options)) },
		}));
	const unused = (): never => {
		throw new Error("not used");
	};
	return {
		kind: "immutable",
		id: "fake" as RefId,
		clone: unused,
		layers: unused,
		isReal: () => true,
		shareFiles: unused,
		mounts: async () => [{ type: "bind", source: directory ?? "", options: ["rbind", "ro"] }],
		blobs,
		knownBlobs: blobs,
		digests: { digest: unused },
		createdAt: 0,
		description: "",
		release: async () => {},
		getMetadata: () => undefined,
		setMetadata: () => {},
		setIndex: () => {},
		[Symbol.asyncDispose]: async () => {},
	};
}

function fail(options: BlobOptions): never {
	throw new Error(`no bytes for ${options.compression}`);
}

export function platformResult(
	id: string,
	ref: ImmutableRef | undefined,
	config?: string,
	baseConfig?: string,
): PlatformResult {
	const encode = (text: string | undefined): Uint8Array | undefined =>
		text === undefined ? undefined : new TextEncoder().encode(text);
	return {
		id,
		platform: parsePlatform(id),
		ref,
		imageConfig: encode(config),
		baseImageConfig: encode(baseConfig),
	};
}

/** As frontends give it: documents in the metadata, by platform where there are several. */
export function buildResult(
	platforms: readonly PlatformResult[],
	options: { readonly multiPlatform?: boolean; readonly metadata?: Readonly<Record<string, string>> } = {},
): BuildResult {
	const encoder = new TextEncoder();
	const isMap = options.multiPlatform ?? false;
	const metadata: Record<string, Uint8Array> = {};
	for (const [key, value] of Object.entries(options.metadata ?? {})) {
		metadata[key] = encoder.encode(value);
	}
	for (const { id, imageConfig, baseImageConfig } of platforms) {
		const suffix = isMap ? `/${id}` : "";
		if (imageConfig !== undefined) {
			metadata[`containerimage.config${suffix}`] = imageConfig;
		}
		if (baseImageConfig !== undefined) {
			metadata[`containerimage.base.config${suffix}`] = baseImageConfig;
		}
	}
	if (isMap) {
		const list = platforms.map(({ id, platform }) => ({ ID: id, Platform: platform }));
		metadata["refs.platforms"] = encoder.encode(JSON.stringify({ Platforms: list }));
	}
	return {
		ref: isMap ? undefined : platforms[0]?.ref,
		refs: new Map(isMap ? platforms.map(({ id, ref }) => [id, ref]) : []),
		metadata,
	};
}

export function exportContext(
	output?: SessionOutput,
	options: { readonly signal?: AbortSignal } = {},
): ExportContext & { readonly events: ProgressEvent[] } {
	const events: ProgressEvent[] = [];
	const session: Pick<Session, "id" | "output"> = {
		id: "test",
		output: (index) => (index === 0 ? output : undefined),
	};
	return {
		signal: options.signal ?? never,
		vertex: sha256("step"),
		progress: { write: (event) => events.push(event) },
		clients: () => [],
		session: session as Session,
		index: 0,
		events,
	};
}

/** Statuses in the order of their first report; each must have been completed. */
export function statusNames(events: readonly ProgressEvent[]): readonly string[] {
	const open = new Map<string, boolean>();
	for (const event of events) {
		if (event.kind === "status") {
			open.set(event.status.id, event.status.completed !== undefined);
		}
	}
	const unfinished = [...open].filter(([, completed]) => !completed);
	if (unfinished.length > 0) {
		throw new Error(`not completed: ${unfinished.join(", ")}`);
	}
	return [...open.keys()];
}

/** A client that keeps what it gets; `fd` is a file that threads write to. */
export function memoryOutput(fd?: number): {
	readonly output: Extract<SessionOutput, { kind: "stream" }>;
	readonly chunks: Uint8Array[];
	readonly calls: string[];
	metadata: Readonly<Record<string, string>>;
} {
	const chunks: Uint8Array[] = [];
	const calls: string[] = [];
	const stream: OutputStream = {
		fd,
		write: async (chunk) => void chunks.push(chunk.slice()),
		close: async () => void calls.push("close"),
		abort: async () => void calls.push("abort"),
	};
	const result = {
		output: {
			kind: "stream" as const,
			open: async (metadata: Readonly<Record<string, string>>) => {
				calls.push("open");
				result.metadata = metadata;
				return stream;
			},
		},
		chunks,
		calls,
		metadata: {} as Readonly<Record<string, string>>,
	};
	return result;
}

export function memoryStore(): {
	readonly output: Extract<SessionOutput, { kind: "store" }>;
	readonly blobs: Map<string, Uint8Array>;
	readonly roots: { readonly descriptor: string; readonly names: readonly string[] }[];
} {
	const blobs = new Map<string, Uint8Array>();
	const roots: { readonly descriptor: string; readonly names: readonly string[] }[] = [];
	const store: OutputStore = {
		has: async (digest) => blobs.has(digest),
		async write({ digest }, chunks) {
			const parts: Uint8Array[] = [];
			for await (const chunk of chunks) {
				parts.push(chunk);
			}
			blobs.set(digest, Buffer.concat(parts));
		},
		setRoot: async (descriptor, names) => void roots.push({ descriptor, names }),
	};
	return { output: { kind: "store", store }, blobs, roots };
}
