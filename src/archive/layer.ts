import { createHash, type Hash } from "node:crypto";
import type { JobContext } from "../async/job.ts";
import { SlipwayError, toError } from "../errors/errors.ts";
import { bytesOf } from "../sys/byte-names.ts";
import type {
	CompressionKind,
	ConvertLayerRequest,
	ExpectedLayer,
	ExtractLayerRequest,
	LayerBlob,
	Sha256,
	WriteLayerRequest,
} from "./archive.ts";
import { findChanges, rootOf } from "./changes.ts";
import { inBlocks, writeBlob } from "./compress.ts";
import { decompress, detectCompression, magicBytes } from "./decompress.ts";
import { Extractor } from "./extract.ts";
import { layerItems } from "./layer-items.ts";
import { BlockPool, pack, type TarItem } from "./pack.ts";
import { retime } from "./retime.ts";
import { TarReader } from "./tar-reader.ts";

/** The work on layers, as it is done in a worker thread; `archiver.ts` has the same for the main thread. */

export interface Control {
	readonly signal: AbortSignal;
	readonly throwIfAborted: () => void;
}

export function controlOf(context: JobContext): Control {
	return { signal: context.signal, throwIfAborted: () => context.throwIfAborted() };
}

type Chunks = AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

export async function writeLayer(request: WriteLayerRequest, control: Control): Promise<LayerBlob> {
	const pool = new BlockPool();
	let entries = 0;
	function* counted(items: Iterable<TarItem>): Generator<TarItem> {
		for (const item of items) {
			entries++;
			yield item;
		}
	}
	const items = layerItems(findChanges(request.source), {
		root: rootOf(request.source),
		maxModifiedSeconds: request.maxModifiedSeconds,
	});
	const blob = await writeBlob(pack(counted(items), pool, control.throwIfAborted), request.dest, {
		compression: request.compression,
		signal: control.signal,
		release: (block) => pool.give(block),
	});
	return { ...blob, entries };
}

/** `isHashedBefore`: somebody else judges the bytes as they are; digest and size of the answer mean nothing then. */
export async function extractLayer(
	request: Omit<ExtractLayerRequest, "source">,
	chunks: Chunks,
	control: Control,
	isHashedBefore = false,
): Promise<LayerBlob> {
	const extractor = new Extractor({
		root: bytesOf(request.root),
		whiteouts: request.whiteouts,
		parents: (request.parents ?? []).map(bytesOf),
		reportOrphans: request.reportOrphans ?? false,
		owner: request.ignoreOwners === true ? "ignore" : "archive",
		bestEffortXattrs: false,
		limits: request.limits ?? {},
		throwIfAborted: control.throwIfAborted,
	});
	const reader = new TarReader(extractor);
	try {
		const layer = new LayerStream(chunks, control.signal, { isHashed: !isHashedBefore });
		for await (const chunk of layer.content()) {
			reader.push(chunk);
		}
		reader.end();
		extractor.finish();
		const blob = { ...layer.finish(request.expected), entries: extractor.entries };
		return request.reportOrphans === true ? { ...blob, orphans: extractor.orphans } : blob;
	} catch (thrown) {
		throw control.signal.aborted ? toError(control.signal.reason) : thrown;
	} finally {
		extractor.close();
	}
}

/** `payloadBytes`: only so many bytes of the blob are the layer, the others are only hashed. */
export async function convertLayer(
	request: Omit<ConvertLayerRequest, "source">,
	chunks: Chunks,
	control: Control,
	payloadBytes: number = Number.POSITIVE_INFINITY,
): Promise<LayerBlob> {
	const pool = new BlockPool();
	const layer = new LayerStream(chunks, control.signal, { payloadBytes });
	let entries = 0;
	const count = (): void => {
		entries++;
	};
	async function* verified(): AsyncGenerator<Uint8Array> {
		yield* retime(layer.content(), request.maxModifiedSeconds, count);
		// Before the blob is finished: a wrong input must leave nothing.
		layer.finish(request.expected);
	}
	const blob = await writeBlob(
		inBlocks(verified(), () => pool.take()),
		request.dest,
		{
			compression: request.compression,
			signal: control.signal,
			release: (block) => pool.give(block),
		},
	);
	return { ...blob, entries };
}

/** The bytes of a layer and the tar in them, hashed on their way. */
class LayerStream {
	readonly #chunks: Chunks;
	readonly #signal: AbortSignal;
	readonly #payloadBytes: number;
	readonly #outer: Hash | undefined;
	readonly #inner = createHash("sha256");
	#size = 0;
	#uncompressedSize = 0;
	#compression: CompressionKind = "uncompressed";

	constructor(
		chunks: Chunks,
		signal: AbortSignal,
		options: { readonly payloadBytes?: number; readonly isHashed?: boolean } = {},
	) {
		this.#chunks = chunks;
		this.#signal = signal;
		this.#payloadBytes = options.payloadBytes ?? Number.POSITIVE_INFINITY;
		this.#outer = options.isHashed === false ? undefined : createHash("sha256");
	}

	/** The tar. May be called once. */
	async *content(): AsyncGenerator<Uint8Array> {
		const { head, rest } = await peek(this.#hashed(), magicBytes);
		const kind = detectCompression(head);
		// A layer is compressed in none of the other ways; as a tar it will fail with a better message.
		this.#compression = kind === "bzip2" || kind === "xz" ? "uncompressed" : kind;
		for await (const chunk of decompress(rest, this.#compression, this.#signal)) {
			// Of an uncompressed blob it is the same as the other, where there is that.
			if (this.#compression !== "uncompressed" || this.#outer === undefined) {
				this.#inner.update(chunk);
			}
			this.#uncompressedSize += chunk.length;
			yield chunk;
		}
	}

	async *#hashed(): AsyncGenerator<Uint8Array> {
		for await (const chunk of this.#chunks) {
			this.#outer?.update(chunk);
			const left = this.#payloadBytes - this.#size;
			this.#size += chunk.length;
			if (left >= chunk.length) {
				yield chunk;
			} else if (left > 0) {
				yield chunk.subarray(0, left);
			}
		}
	}

	/** What went through, if it is what was expected. Call after the last byte. */
	finish(expected: ExpectedLayer = {}): Omit<LayerBlob, "entries"> {
		const outer = this.#outer?.digest("hex");
		const isSame = this.#compression === "uncompressed" && outer !== undefined;
		const diffId: Sha256 = `sha256:${isSame ? outer : this.#inner.digest("hex")}`;
		const digest: Sha256 = outer === undefined ? diffId : `sha256:${outer}`;
		for (const [what, found, wanted] of [
			["size", this.#size, expected.size],
			["digest", digest, expected.digest],
			["uncompressed digest", diffId, expected.diffId],
		] as const) {
			if (wanted !== undefined && found !== wanted) {
				throw new SlipwayError("data-loss", `layer has ${what} ${found}, expected ${wanted}`);
			}
		}
		return {
			compression: this.#compression,
			digest,
			size: this.#size,
			diffId,
			uncompressedSize: this.#uncompressedSize,
		};
	}
}

/** The first bytes (fewer only if there are no more), and all chunks with them. */
export async function peek(
	chunks: AsyncGenerator<Uint8Array>,
	bytes: number,
): Promise<{ readonly head: Uint8Array; readonly rest: AsyncGenerator<Uint8Array> }> {
	const first: Uint8Array[] = [];
	let length = 0;
	while (length < bytes) {
		const next = await chunks.next();
		if (next.done === true) {
			break;
		}
		first.push(next.value);
		length += next.value.length;
	}
	async function* rest(): AsyncGenerator<Uint8Array> {
		yield* first;
		yield* chunks;
	}
	return { head: Buffer.concat(first).subarray(0, bytes), rest: rest() };
}
