import { constants, createGunzip, createZstdDecompress } from "node:zlib";
import { SlipwayError } from "../errors/errors.ts";

/**
 * Node's decoders without their stream: input and output are buffers that are used again, and nothing waits for another thread.
 * For a worker thread that hashes and writes what comes out anyway, that is less than half of the processor's time: a stream
 * makes a new buffer for each piece, whose pages the kernel must clear one by one.
 *
 * It calls `writeSync` of the stream's handle, as Node's own `gunzipSync` does, and npm's tar has done for years. Where a version of
 * Node has no such thing, `openSyncDecoder` gives undefined, and the stream is used.
 */
export interface SyncDecoder extends Disposable {
	/** What the input becomes. A piece is good until the next one is asked for. Throws `data-loss`. */
	decode(input: Uint8Array): Generator<Uint8Array, void>;
	/** The input is over. Throws `data-loss` if it was cut off. */
	finish(): Generator<Uint8Array, void>;
}

/** The part of Node's internals that is used: lib/zlib.js, processChunkSync. */
interface Internals {
	readonly _handle?: {
		writeSync?(
			flush: number,
			input: Uint8Array | null,
			inputOffset: number,
			inputLength: number,
			output: Uint8Array,
			outputOffset: number,
			outputLength: number,
		): void;
		onerror?: (message: string, errno: number, code: string) => void;
	};
	/** Room left in the output, input not yet used. */
	readonly _writeState?: Uint32Array;
	destroy(): void;
}

const outputBytes = 256 << 10;

export function openSyncDecoder(kind: "gzip" | "zstd"): SyncDecoder | undefined {
	const stream = (kind === "gzip" ? createGunzip() : createZstdDecompress()) as unknown as Internals;
	const { _handle: handle, _writeState: state } = stream;
	if (typeof handle?.writeSync !== "function" || state === undefined) {
		stream.destroy();
		return undefined;
	}
	const flush = kind === "gzip" ? constants.Z_NO_FLUSH : constants.ZSTD_e_continue;
	const finish = kind === "gzip" ? constants.Z_FINISH : constants.ZSTD_e_end;
	const room = Buffer.allocUnsafeSlow(outputBytes);
	let failure: string | undefined;
	handle.onerror = (message, _, code) => {
		failure = `${message} (${code})`;
	};
	function* write(how: number, input: Uint8Array | null): Generator<Uint8Array, void> {
		let at = 0;
		let left = input?.length ?? 0;
		for (;;) {
			handle?.writeSync?.(how, input, at, left, room, 0, room.length);
			if (failure !== undefined) {
				throw new SlipwayError("data-loss", `${kind} stream is damaged or cut off: ${failure}`);
			}
			const [roomLeft = 0, inputLeft = 0] = state ?? [];
			at += left - inputLeft;
			left = inputLeft;
			if (roomLeft < room.length) {
				yield room.subarray(0, room.length - roomLeft);
			}
			// A full output may not be all of it; one that has room is.
			if (roomLeft > 0) {
				return;
			}
		}
	}
	return {
		decode: (input) => write(flush, input),
		finish: () => write(finish, null),
		[Symbol.dispose]: () => stream.destroy(),
	};
}
