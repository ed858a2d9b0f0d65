import type { Transferable } from "node:worker_threads";
import { createByteChannel, receiveBytes, sendBytes } from "../async/byte-channel.ts";
import type { ThreadPool } from "../async/pool.ts";
import { toError } from "../errors/errors.ts";
import type { ArchiveOptions, Archiver, ByteSource, LayerBlob, TarPart } from "./archive.ts";
import type { SentSource } from "./source.ts";

/**
 * The archiver whose work is done by the pool's threads. A job whose bytes are streamed to it holds its thread while they
 * come, so a pool for downloads wants more threads than processors.
 */
export function createArchiver(pool: ThreadPool): Archiver {
	return {
		writeLayer: (request, { signal }) => pool.run("archive/write-layer", request, { signal }),
		extractLayer: ({ source, ...request }, { signal }) =>
			withSource(source, signal, (sent, transfer, ends) =>
				pool.run<unknown, LayerBlob>(
					"archive/extract-layer",
					{ request, source: sent },
					{ signal: ends, transfer },
				),
			),
		convertLayer: ({ source, ...request }, { signal }) =>
			withSource(source, signal, (sent, transfer, ends) =>
				pool.run<unknown, LayerBlob>(
					"archive/convert-layer",
					{ request, source: sent },
					{ signal: ends, transfer },
				),
			),
		isArchive: (path, { signal }) => pool.run("archive/unpack", { kind: "detect", path }, { signal }),
		async unpack(request, { signal }) {
			await pool.run("archive/unpack", { kind: "unpack", request }, { signal });
		},
		tar: (parts, options) => streamTar(pool, parts, options),
	};
}

/** Runs the job with a port in place of the stream, and feeds the port meanwhile. The job's error counts, not the feeder's. */
async function withSource(
	source: ByteSource,
	signal: AbortSignal,
	run: (source: SentSource, transfer: readonly Transferable[], signal: AbortSignal) => Promise<LayerBlob>,
): Promise<LayerBlob> {
	if (source.kind === "file") {
		return await run(source, [], signal);
	}
	const { sender, receiver } = createByteChannel();
	const feeder = new AbortController();
	const running = run({ kind: "port", port: receiver }, [receiver], signal);
	const sending = sendBytes(sender, source.chunks, { signal: AbortSignal.any([signal, feeder.signal]) });
	sending.catch(() => {});
	try {
		return await running;
	} finally {
		// A job that failed early leaves its source unread.
		feeder.abort();
		await sending.catch(() => {});
	}
}

async function* streamTar(
	pool: ThreadPool,
	parts: readonly TarPart[],
	{ signal }: ArchiveOptions,
): AsyncGenerator<Uint8Array, void> {
	const { sender, receiver } = createByteChannel();
	const stop = new AbortController();
	const both = AbortSignal.any([signal, stop.signal]);
	const running = pool.run<unknown, void>(
		"archive/tar",
		{ parts, port: sender },
		{ signal: both, transfer: [sender] },
	);
	running.catch(() => {});
	try {
		yield* receiveBytes(receiver, { signal });
		await running;
	} catch (thrown) {
		stop.abort();
		throw signal.aborted ? toError(signal.reason) : thrown;
	} finally {
		stop.abort();
	}
}
