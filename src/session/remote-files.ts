import type { ThreadPool } from "../async/pool.ts";
import { hasCode, toError } from "../errors/errors.ts";
import { keepCode } from "../errors/kept-code.ts";
import { fileSyncDiffCopy } from "./packet-pieces.ts";
import { receiveTree } from "./receive-tree.ts";
import { ended, openCall, type RemoteCalls } from "./remote-calls.ts";
import type { SyncOptions, SyncRequest, SyncSummary } from "./session.ts";
import { callKeys, listMetadata } from "./session-metadata.ts";

/** How long a client may take to end a call that is done with. */
const lingerMs = 2000;

/** A directory of the client into a copy of the builder's. */
export async function syncFiles(
	calls: RemoteCalls,
	pool: ThreadPool,
	request: SyncRequest,
	{ signal, onProgress, digestHeader }: SyncOptions,
): Promise<SyncSummary> {
	const { stream, fail } = openCall(calls, fileSyncDiffCopy, {
		signal,
		metadata: {
			...listMetadata(callKeys.directory, [request.name]),
			...listMetadata(callKeys.include, request.includePatterns),
			...listMetadata(callKeys.exclude, request.excludePatterns),
			...listMetadata(callKeys.follow, request.followPaths),
		},
	});
	try {
		return await receiveTree(
			stream,
			{
				target: request.target,
				force: request.differ === "none",
				mirror: true,
				place: { kind: "copy" },
				...(request.previous === undefined ? {} : { previous: request.previous }),
				...(digestHeader === undefined ? {} : { digestHeader }),
			},
			{ signal, pool, cancel: fail, ...(onProgress === undefined ? {} : { onProgress }) },
		);
	} catch (thrown) {
		if (calls.closed.aborted && !signal.aborted) {
			throw toError(calls.closed.reason);
		}
		// The client has no such directory, in its words.
		throw hasCode(thrown, "not-found") ? keepCode(toError(thrown)) : thrown;
	} finally {
		const timer = setTimeout(() => stream.cancel(), lingerMs);
		timer.unref();
		void ended(stream)
			.catch(() => stream.cancel())
			.finally(() => clearTimeout(timer));
	}
}
