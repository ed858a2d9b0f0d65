import { SlipwayError } from "../errors/errors.ts";
import type { Codec } from "./grpc.ts";

/** A message as it came: at least one piece. */
export interface WireMessage {
	readonly pieces: readonly Uint8Array[];
	readonly size: number;
}

export function decodeMessage<T>(codec: Codec<T>, { pieces, size }: WireMessage): T {
	const [only] = pieces;
	return pieces.length === 1 && only !== undefined
		? codec.decode(only)
		: (codec.decodePieces?.(pieces, size) ?? codec.decode(Buffer.concat(pieces, size)));
}

export interface PieceReaderOptions {
	readonly maxMessageBytes: number;
	/** Takes each message; its pieces are views of what was read. */
	readonly onMessage: (message: WireMessage) => void;
}

const prefixBytes = 5;
const nothing = new Uint8Array(0);

/**
 * Cuts gRPC's messages out of a stream without joining them: what a message is needed for may be to copy it piece by piece, and large
 * transfers are messages that never come in one piece. Memory for a message is taken as it comes, not as it is announced.
 */
export class PieceReader {
	readonly #options: PieceReaderOptions;
	readonly #prefix: Uint8Array = new Uint8Array(prefixBytes);
	#prefixAt = 0;
	#pieces: Uint8Array[] = [];
	/** Bytes of the message that have not come; undefined: its length has not. */
	#rest: number | undefined;
	#size = 0;

	constructor(options: PieceReaderOptions) {
		this.#options = options;
	}

	/** Throws the error that the call ends with when this is no stream of messages. */
	push(chunk: Uint8Array): void {
		let at = 0;
		while (at < chunk.length || this.#rest === 0) {
			if (this.#rest === undefined) {
				while (this.#prefixAt < prefixBytes && at < chunk.length) {
					this.#prefix[this.#prefixAt++] = chunk[at++] as number;
				}
				if (this.#prefixAt < prefixBytes) {
					return;
				}
				this.#prefixAt = 0;
				this.#size = this.#readLength();
				this.#rest = this.#size;
				continue;
			}
			const piece = chunk.subarray(at, at + this.#rest);
			at += piece.length;
			this.#rest -= piece.length;
			if (piece.length > 0) {
				this.#pieces.push(piece);
			}
			if (this.#rest === 0) {
				const pieces = this.#pieces.length === 0 ? [nothing] : this.#pieces;
				this.#rest = undefined;
				this.#pieces = [];
				this.#options.onMessage({ pieces, size: this.#size });
			}
		}
	}

	/** To be called at the end of the stream; throws if it is in the middle of a message. */
	end(): void {
		if (this.#rest !== undefined || this.#prefixAt > 0) {
			throw new SlipwayError("internal", "unexpected EOF");
		}
	}

	#readLength(): number {
		const [flag = 0, a = 0, b = 0, c = 0, d = 0] = this.#prefix;
		if (flag === 1) {
			throw new SlipwayError("internal", "grpc: compressed flag set with identity or empty encoding");
		}
		if (flag !== 0) {
			throw new SlipwayError("internal", `grpc: received unexpected payload format ${flag}`);
		}
		const length = a * 2 ** 24 + ((b << 16) | (c << 8) | d);
		const max = this.#options.maxMessageBytes;
		if (length > max) {
			throw new SlipwayError(
				"resource-exhausted",
				`grpc: received message larger than max (${length} vs. ${max})`,
			);
		}
		return length;
	}
}
