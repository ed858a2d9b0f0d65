import type { ThreadPool } from "../async/pool.ts";
import { canceled, toError } from "../errors/errors.ts";
import type { SyncOptions, SyncRequest, SyncSummary } from "./session.ts";
import type { SyncJobInput } from "./sync.job.ts";
import { type SyncTreeOptions, syncTree } from "./sync-tree.ts";

/**
 * What the calling thread does itself, as starting a thread costs 20 ms: look at as many files as take some 50 ms when there is
 * something to compare with, at a few otherwise, and write what takes a few milliseconds.
 */
const knownEntries = 20_000;
const unknownEntries = 1000;
const inlineSteps = 200;
const inlineBytes = 8 << 20;
/** Bytes per row of a state, at the least. */
const stateRowBytes = 65;

/** Makes `request.target` equal to what the request shows of the directory `source` of this host. */
export async function syncDirectory(
	source: string,
	request: Omit<SyncRequest, "name">,
	options: SyncOptions & { readonly pool: ThreadPool },
): Promise<SyncSummary> {
	const { signal } = options;
	if (signal.aborted) {
		throw toError(signal.reason);
	}
	const expected = (request.previous?.length ?? 0) / stateRowBytes;
	if (expected <= knownEntries) {
		const summary = inline({
			source,
			request,
			throwIfAborted: () => {},
			onBytes: (total) => options.onProgress?.(total),
			limits: {
				entries: request.previous === undefined ? unknownEntries : knownEntries,
				steps: inlineSteps,
				bytes: inlineBytes,
			},
		});
		if (summary !== undefined) {
			return summary;
		}
	}
	return inThread(source, request, options);
}

function inline(options: SyncTreeOptions): SyncSummary | undefined {
	try {
		return syncTree(options);
	} catch (thrown) {
		throw toError(thrown);
	}
}

async function inThread(
	source: string,
	request: Omit<SyncRequest, "name">,
	options: SyncOptions & { readonly pool: ThreadPool },
): Promise<SyncSummary> {
	const { signal } = options;
	const stop = new Int32Array(new SharedArrayBuffer(4));
	const onAbort = (): void => {
		Atomics.store(stop, 0, 1);
	};
	signal.addEventListener("abort", onAbort);
	try {
		// The pool gives up waiting on abort, but the thread would still write: so it is told by `stop`, and waited for.
		const summary = await options.pool.run<SyncJobInput, SyncSummary>(
			"session/sync",
			{ source, request, stop: stop.buffer },
			{
				signal: new AbortController().signal,
				onMessage: (total) => {
					if (!signal.aborted) {
						options.onProgress?.(Number(total));
					}
				},
			},
		);
		if (signal.aborted) {
			throw canceled(signal.reason);
		}
		return summary;
	} catch (thrown) {
		throw signal.aborted ? toError(signal.reason) : toError(thrown);
	} finally {
		signal.removeEventListener("abort", onAbort);
	}
}
