import { closeSync, openSync, readSync } from "node:fs";
import type { Transform } from "node:stream";
import { createGunzip, createZstdDecompress, zstdDecompressSync } from "node:zlib";
import { SlipwayError, toError, wrap } from "../errors/errors.ts";
import type { CompressionKind } from "./archive.ts";
import { openSyncDecoder, type SyncDecoder } from "./sync-inflate.ts";
import { type FramePiece, ZstdFrames } from "./zstd-frames.ts";

/** How a file is compressed; two of them only an outside program can read. */
export type StoredKind = CompressionKind | "bzip2" | "xz";

/** Bytes that `detectCompression` wants to see. */
export const magicBytes = 10;

/** By the first bytes; what is none of the known forms counts as a plain tar. zstd may begin with a skippable frame. */
export function detectCompression(head: Uint8Array): StoredKind {
	const starts = (...bytes: number[]): boolean => bytes.every((byte, index) => head[index] === byte);
	if (starts(0x1f, 0x8b, 0x08)) {
		return "gzip";
	}
	if (starts(0x28, 0xb5, 0x2f, 0xfd)) {
		return "zstd";
	}
	if (starts(0x42, 0x5a, 0x68)) {
		return "bzip2";
	}
	if (starts(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00)) {
		return "xz";
	}
	const isSkippable =
		head.length >= 8 && ((head[0] ?? 0) & 0xf0) === 0x50 && head[1] === 0x2a && head[2] === 0x4d;
	return isSkippable && head[3] === 0x18 ? "zstd" : "uncompressed";
}

/** Decompressed ahead of whoever reads, so that inflating (on libuv's threads) and writing files overlap. */
const aheadBytes = 4 << 20;
const chunkBytes = 256 << 10;

/** The chunks of a file, read as they are asked for. */
export function* readChunks(path: string): Generator<Uint8Array> {
	let fd: number;
	try {
		fd = openSync(path, "r");
	} catch (thrown) {
		throw toError(thrown);
	}
	try {
		for (;;) {
			const chunk = Buffer.allocUnsafeSlow(chunkBytes);
			const got = readSync(fd, chunk, 0, chunkBytes, null);
			if (got === 0) {
				return;
			}
			yield chunk.subarray(0, got);
		}
	} catch (thrown) {
		throw wrap(thrown, `read ${path}`);
	} finally {
		closeSync(fd);
	}
}

/**
 * Content of a gzip or zstd stream of one or more members. Cut off or damaged: `data-loss`. A chunk is good until the next one is asked
 * for.
 */
export async function* decompress(
	chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
	kind: CompressionKind,
	signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
	switch (kind) {
		case "uncompressed":
			for await (const chunk of chunks) {
				signal.throwIfAborted();
				yield chunk;
			}
			return;
		case "gzip": {
			using decoder = openSyncDecoder(kind);
			yield* decoder === undefined
				? throughStream(chunks, createGunzip(streamOptions), kind, signal)
				: throughDecoder(chunks, decoder, signal);
			return;
		}
		case "zstd":
			yield* decompressFrames(framePieces(chunks), signal);
	}
}

const streamOptions = { chunkSize: chunkBytes, readableHighWaterMark: aheadBytes };

/** Frames up to this are decoded at once: a stream for each would cost more than the frame. */
const smallFrameBytes = 128 << 10;
const smallContentBytes = 4 << 20;

async function* framePieces(
	chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): AsyncGenerator<FramePiece, undefined> {
	const frames = new ZstdFrames();
	for await (const chunk of chunks) {
		yield* frames.push(chunk);
	}
	frames.end();
	return undefined;
}

async function* decompressFrames(
	pieces: AsyncGenerator<FramePiece, undefined>,
	signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
	for (;;) {
		const head: Uint8Array[] = [];
		let bytes = 0;
		let ended = false;
		while (!ended && bytes <= smallFrameBytes) {
			const { value } = await pieces.next();
			if (value === undefined) {
				return;
			}
			head.push(value.bytes);
			bytes += value.bytes.length;
			ended = value.ends;
		}
		const content = ended ? decodeSmall(Buffer.concat(head)) : undefined;
		if (content !== undefined) {
			signal.throwIfAborted();
			yield content;
		} else {
			using decoder = openSyncDecoder("zstd");
			const frame = frameFrom(head, ended, pieces);
			yield* decoder === undefined
				? throughStream(frame, createZstdDecompress(streamOptions), "zstd", signal)
				: throughDecoder(frame, decoder, signal);
		}
	}
}

/** `undefined` if the content is too much for one buffer. */
function decodeSmall(frame: Uint8Array): Uint8Array | undefined {
	try {
		return zstdDecompressSync(frame, { maxOutputLength: smallContentBytes });
	} catch (thrown) {
		if ((thrown as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE") {
			return undefined;
		}
		throw damaged("zstd", thrown);
	}
}

/** One whole frame. Takes pieces one by one, so that those of the next frame stay. */
async function* frameFrom(
	head: readonly Uint8Array[],
	ended: boolean,
	pieces: AsyncGenerator<FramePiece, undefined>,
): AsyncGenerator<Uint8Array> {
	yield* head;
	while (!ended) {
		const { value } = await pieces.next();
		if (value === undefined) {
			return;
		}
		yield value.bytes;
		ended = value.ends;
	}
}

async function* throughDecoder(
	chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
	decoder: SyncDecoder,
	signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
	for await (const chunk of chunks) {
		signal.throwIfAborted();
		yield* decoder.decode(chunk);
	}
	yield* decoder.finish();
}

async function* throughStream(
	chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
	stream: Transform,
	kind: CompressionKind,
	signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
	const failed: { thrown: unknown }[] = [];
	const feeding = feed(chunks, stream, signal).catch((thrown: unknown) => {
		failed.push({ thrown });
		stream.destroy(toError(thrown));
	});
	try {
		for await (const chunk of stream) {
			yield chunk as Uint8Array;
		}
		await feeding;
	} catch (thrown) {
		// A source that failed is the reason, not the stream that it left unfinished.
		throw failed.length > 0 ? failed[0]?.thrown : damaged(kind, thrown);
	} finally {
		stream.destroy();
		await feeding;
	}
}

async function feed(
	chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
	stream: Transform,
	signal: AbortSignal,
): Promise<void> {
	for await (const chunk of chunks) {
		signal.throwIfAborted();
		if (stream.destroyed) {
			return;
		}
		if (!stream.write(chunk)) {
			await new Promise<void>((resolve) => {
				const done = (): void => {
					stream.off("drain", done);
					stream.off("close", done);
					resolve();
				};
				stream.on("drain", done);
				stream.on("close", done);
			});
		}
	}
	stream.end();
}

function damaged(kind: CompressionKind, thrown: unknown): SlipwayError {
	if (thrown instanceof SlipwayError) {
		return thrown;
	}
	const { code } = thrown as NodeJS.ErrnoException;
	if (typeof code === "string" && /^(Z_|ZSTD_|ERR_Z)/.test(code)) {
		return new SlipwayError(
			"data-loss",
			`${kind} stream is damaged or cut off: ${(thrown as Error).message}`,
			{
				cause: thrown,
			},
		);
	}
	return toError(thrown);
}
