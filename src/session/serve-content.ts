import {
	emptyInfo,
	WriteAction,
	type WriteContentRequest,
	type WriteContentResponse,
} from "../api/generated/content.ts";
import type { MessageStream, ServedMethod, ServerCall } from "../api/grpc.ts";
import { serve } from "../api/grpc-server.ts";
import { content } from "../api/services/content.ts";
import type { ContentReader } from "../content/content.ts";
import { SlipwayError, toError } from "../errors/errors.ts";
import { type Digest, parseDigest } from "../oci/digest.ts";
import type { LocalSessionOptions } from "./local-session.ts";
import type { BlobWriter } from "./session.ts";
import { callKeys, exportStore, metadataValue, storeKey } from "./session-metadata.ts";

interface LentStore {
	readonly reader?: ContentReader;
	readonly writer?: BlobWriter;
}

/** Containerd's content API on the stores that are lent, as much of it as builders use: what is there, its bytes, and new blobs. */
export function serveContent(lends: LocalSessionOptions): readonly ServedMethod[] {
	const stores = lentStores(lends);
	if (stores.size === 0) {
		return [];
	}
	const choose = ({ metadata }: ServerCall): LentStore => {
		const id = metadataValue(metadata, callKeys.storeId);
		if (id === undefined) {
			throw new SlipwayError(
				"invalid-argument",
				`request lacks metadata "${callKeys.storeId}": invalid argument`,
			);
		}
		const store = stores.get(id);
		if (store === undefined) {
			throw new SlipwayError("not-found", `unknown store ${id}: not found`);
		}
		return store;
	};
	return [
		serve(content.info, async ({ digest }, call) => {
			const { reader, writer } = choose(call);
			const known = await reader?.info(parseDigest(digest));
			if (known === undefined && (writer === undefined || !(await writer.has(digest)))) {
				throw notFound(digest);
			}
			return { info: { ...emptyInfo(), digest, size: known?.size ?? 0 } };
		}),
		serve(content.read, async ({ digest, offset, size }, stream, call) => {
			const { reader } = choose(call);
			if (reader === undefined) {
				throw notFound(digest);
			}
			let at = Number(offset);
			const length = Number(size);
			for await (const data of reader.read(parseDigest(digest), {
				offset: at,
				...(length > 0 ? { length } : {}),
				signal: call.signal,
			})) {
				await stream.send({ offset: at, data });
				at += data.length;
			}
		}),
		serve(content.write, async (stream, call) => {
			const { writer } = choose(call);
			if (writer === undefined) {
				throw new SlipwayError("failed-precondition", "read-only content store");
			}
			await receiveBlob(stream, writer, call.signal);
		}),
		serve(content.status, async ({ ref }) => {
			throw notFound(`ref ${ref}`);
		}),
		serve(content.listStatuses, async () => ({ statuses: [] })),
		serve(content.abort, async ({ ref }) => {
			throw notFound(`ref ${ref}`);
		}),
	];
}

function lentStores({
	contentStores = {},
	contentWriters = {},
	outputs = [],
}: LocalSessionOptions): ReadonlyMap<string, LentStore> {
	const stores = new Map<string, LentStore>();
	for (const [id, reader] of Object.entries(contentStores)) {
		stores.set(storeKey(id), { reader });
	}
	for (const [id, writer] of Object.entries(contentWriters)) {
		stores.set(storeKey(id), { ...stores.get(storeKey(id)), writer });
	}
	for (const output of outputs) {
		if (output?.kind === "store") {
			// BuildKit knows one such output of a build.
			stores.set(exportStore, { writer: output.store });
		}
	}
	return stores;
}

type WriteStream = MessageStream<WriteContentRequest, WriteContentResponse>;

/** One blob in pieces, each of which is answered with how far it has come. It appears when it is committed and what it was said to be. */
async function receiveBlob(stream: WriteStream, writer: BlobWriter, signal: AbortSignal): Promise<void> {
	let expected: Digest | undefined;
	let total = 0;
	let offset = 0;
	let chunks: Feed | undefined;
	let written: Promise<void> | undefined;
	const answer = async (action: WriteAction, digest: string): Promise<void> => {
		await stream.send({ action, startedAt: undefined, updatedAt: undefined, offset, total, digest });
	};
	const begin = (): Feed => {
		if (expected === undefined || total === 0) {
			throw new SlipwayError("invalid-argument", "a blob is written without its digest and size");
		}
		chunks = createFeed();
		written = writer.write({ digest: expected, size: total }, chunks.chunks, { signal });
		written.catch((thrown: unknown) => chunks?.fail(toError(thrown)));
		return chunks;
	};
	try {
		for await (const request of stream) {
			if (expected === undefined && request.expected !== "") {
				expected = parseDigest(request.expected);
				if (await writer.has(expected)) {
					throw new SlipwayError("already-exists", `content ${expected}: already exists`);
				}
			}
			total = Number(request.total) || total;
			if (request.action !== WriteAction.STAT && request.data.length > 0) {
				if (Number(request.offset) !== offset) {
					throw new SlipwayError(
						"out-of-range",
						`write @${request.offset} must occur at current offset ${offset}`,
					);
				}
				await (chunks ?? begin()).push(request.data);
				offset += request.data.length;
			}
			if (request.action === WriteAction.COMMIT) {
				(chunks ?? begin()).end();
				await written;
				await answer(WriteAction.COMMIT, expected ?? "");
				return;
			}
			await answer(request.action, "");
		}
	} catch (thrown) {
		chunks?.fail(toError(thrown));
		await written?.catch(() => undefined);
		throw thrown;
	}
	chunks?.fail(new SlipwayError("canceled", "blob was not committed"));
	await written?.catch(() => undefined);
}

interface Feed {
	readonly chunks: AsyncIterable<Uint8Array>;
	/** Resolves when the chunk was taken. */
	push(chunk: Uint8Array): Promise<void>;
	end(): void;
	fail(error: Error): void;
}

/** Chunks that are handed over one at a time. */
function createFeed(): Feed {
	let next: Uint8Array | undefined;
	let state: { readonly error: Error | undefined } | undefined;
	let changed: PromiseWithResolvers<void> = Promise.withResolvers();
	const change = (): void => {
		changed.resolve();
		changed = Promise.withResolvers();
	};
	return {
		chunks: (async function* () {
			for (;;) {
				if (next !== undefined) {
					const chunk = next;
					next = undefined;
					change();
					yield chunk;
				} else if (state?.error !== undefined) {
					throw state.error;
				} else if (state !== undefined) {
					return;
				} else {
					await changed.promise;
				}
			}
		})(),
		async push(chunk) {
			next = chunk;
			change();
			while (next !== undefined) {
				if (state?.error !== undefined) {
					throw state.error;
				}
				await changed.promise;
			}
		},
		end() {
			state ??= { error: undefined };
			change();
		},
		fail(error) {
			state ??= { error };
			change();
		},
	};
}

function notFound(what: string): SlipwayError {
	return new SlipwayError("not-found", `content ${what}: not found`);
}
