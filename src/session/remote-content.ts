import { WriteAction, type WriteContentRequest } from "../api/generated/content.ts";
import { content } from "../api/services/content.ts";
import type { BlobInfo, ContentReader, ReadOptions } from "../content/content.ts";
import { hasCode, SlipwayError } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";
import { type CallRequest, call, ended, openCall, type RemoteCalls } from "./remote-calls.ts";
import type { BlobWriter } from "./session.ts";
import { callKeys } from "./session-metadata.ts";

/** Pieces of a blob on the wire. Each is answered, so that small ones would be slow. */
const pieceBytes = 1 << 20;

/** One content store of the client, over containerd's content API. */
export class RemoteContent implements ContentReader, BlobWriter {
	readonly #calls: RemoteCalls;
	readonly #storeId: string;

	constructor(calls: RemoteCalls, storeId: string) {
		this.#calls = calls;
		this.#storeId = storeId;
	}

	async info(digest: Digest): Promise<BlobInfo | undefined> {
		try {
			const { info } = await call(
				this.#calls,
				content.info,
				{ digest },
				this.#options(new AbortController().signal),
			);
			return info === undefined ? undefined : { digest, size: Number(info.size) };
		} catch (thrown) {
			if (hasCode(thrown, "not-found")) {
				return undefined;
			}
			throw thrown;
		}
	}

	async *read(digest: Digest, { offset = 0, length, signal }: ReadOptions): AsyncGenerator<Uint8Array, void> {
		if (length === 0) {
			return;
		}
		using open = openCall(this.#calls, content.read, this.#options(signal));
		const { stream } = open;
		await stream.send({ digest, offset, size: length ?? 0 });
		stream.closeSend();
		let rest = length ?? Number.POSITIVE_INFINITY;
		for await (const { data } of stream) {
			if (data.length > rest) {
				throw new SlipwayError("data-loss", `client sends more of ${digest} than was asked for`);
			}
			rest -= data.length;
			if (data.length > 0) {
				yield data;
			}
		}
	}

	async has(digest: string): Promise<boolean> {
		return (await this.info(digest as Digest)) !== undefined;
	}

	/** A blob that the client has already is not sent, or is sent for nothing. */
	async write(
		descriptor: { readonly digest: string; readonly size: number },
		chunks: AsyncIterable<Uint8Array>,
		{ signal }: { readonly signal: AbortSignal },
	): Promise<void> {
		const { digest, size } = descriptor;
		const ref = `slipway-${digest}`;
		using open = openCall(this.#calls, content.write, this.#options(signal));
		const { stream } = open;
		const answers = stream[Symbol.asyncIterator]();
		const ask = async (request: Partial<WriteContentRequest>): Promise<number> => {
			await stream.send({
				action: WriteAction.WRITE,
				ref,
				total: size,
				expected: digest,
				offset: 0,
				data: nothing,
				labels: new Map(),
				...request,
			});
			const answer = await answers.next();
			if (answer.done === true) {
				throw new SlipwayError(
					"unavailable",
					`client ended the transfer of ${digest} before it was complete`,
				);
			}
			return Number(answer.value.offset);
		};
		try {
			// What an earlier attempt left is written over.
			await ask({ action: WriteAction.STAT });
			let offset = 0;
			for await (const data of pieces(chunks)) {
				const reached = await ask({ offset, data });
				offset += data.length;
				if (reached !== offset) {
					throw new SlipwayError("data-loss", `client wrote ${reached} of ${offset} bytes of ${digest}`);
				}
			}
			await ask({ action: WriteAction.COMMIT, offset });
			await ended(stream);
		} catch (thrown) {
			if (!hasCode(thrown, "already-exists")) {
				throw thrown;
			}
		}
	}

	#options(signal: AbortSignal): CallRequest {
		return { signal, metadata: { [callKeys.storeId]: [this.#storeId] } };
	}
}

const nothing = new Uint8Array(0);

/** The same bytes in pieces of one size, but for the last. */
async function* pieces(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void> {
	let held: Uint8Array[] = [];
	let size = 0;
	for await (const chunk of chunks) {
		for (let at = 0; at < chunk.length; ) {
			const part = chunk.subarray(at, at + pieceBytes - size);
			held.push(part);
			size += part.length;
			at += part.length;
			if (size === pieceBytes) {
				yield Buffer.concat(held);
				held = [];
				size = 0;
			}
		}
	}
	if (size > 0) {
		yield Buffer.concat(held);
	}
}
