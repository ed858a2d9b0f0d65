import { rmSync } from "node:fs";
import type { Transferable } from "node:worker_threads";
import { createByteChannel, receiveBytes, sendBytes } from "../async/byte-channel.ts";
import { fromPlainError } from "../async/job.ts";
import type { ThreadPool } from "../async/pool.ts";
import { toError } from "../errors/errors.ts";
import type {
	ArchiveOptions,
	Archiver,
	ByteSource,
	FetchedLayer,
	FetchLayerRequest,
	LayerBlob,
	TarPart,
} from "./archive.ts";
import type { Output as FetchOutput } from "./fetch-layer.job.ts";
import { createGrowingFile } from "./growing-file.ts";
import type { SentSource } from "./source.ts";

export interface ArchiverOptions {
	/** For what comes from far away and may stand still for long, holding its thread; default: the same pool. */
	readonly downloads?: ThreadPool;
}

/** The archiver whose work is done by the pool's threads. */
export function createArchiver(pool: ThreadPool, options: ArchiverOptions = {}): Archiver {
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
		fetchLayer: (request, { signal }) => fetchLayer(options.downloads ?? pool, request, signal),
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
async function withSource<T>(
	source: ByteSource,
	signal: AbortSignal,
	run: (source: SentSource, transfer: readonly Transferable[], signal: AbortSignal) => Promise<T>,
): Promise<T> {
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

/** The thread reads the file that this one writes. Its error counts, unless it is only that of the source. */
async function fetchLayer(
	pool: ThreadPool,
	{ chunks, keepAt, ...request }: FetchLayerRequest,
	signal: AbortSignal,
): Promise<FetchedLayer> {
	const { file, write } = createGrowingFile(keepAt);
	const stop = new AbortController();
	const running = pool.run<unknown, FetchOutput>(
		"archive/fetch-layer",
		{ request, file },
		{ signal, transfer: [file.port] },
	);
	const writing = write(chunks, { signal: AbortSignal.any([signal, stop.signal]) });
	writing.catch(() => {});
	try {
		const fetched = await running;
		return fetched.kind === "unpacked" ? fetched : { kind: "kept", failure: fromPlainError(fetched.failure) };
	} catch (thrown) {
		rmSync(keepAt, { force: true });
		throw toError(thrown);
	} finally {
		stop.abort();
		await writing.catch(() => {});
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
	// A job that fails before it has the port, such as one whose program is gone, closes nothing.
	const failed = new AbortController();
	running.catch((error) => failed.abort(error));
	try {
		yield* receiveBytes(receiver, { signal: AbortSignal.any([signal, failed.signal]) });
		await running;
	} catch (thrown) {
		stop.abort();
		throw signal.aborted ? toError(signal.reason) : thrown;
	} finally {
		stop.abort();
	}
}
