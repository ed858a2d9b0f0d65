import { SlipwayError } from "../errors/errors.ts";

/** A stretch of one frame, as it came; `ends` on its last. Skippable frames are left out. */
export interface FramePiece {
	readonly bytes: Uint8Array;
	readonly ends: boolean;
}

/**
 * Finds the frames of a zstd stream (RFC 8878 section 3.1). Node's decoder stops after the first frame and is silent about the
 * rest, but layers are often many frames: zstd:chunked has one for each file and a skippable one with its index.
 */
export class ZstdFrames {
	#step: Step = "magic";
	/** Bytes still to come of what the step passes over. */
	#left = 0;
	/** Little-endian number that the step gathers, and how many of its bytes it has. */
	#number = 0;
	#gathered = 0;
	#hasChecksum = false;
	#isLast = false;
	/** Bytes of a magic number that ended with its chunk. */
	#carried: Uint8Array = new Uint8Array();

	*push(chunk: Uint8Array): Generator<FramePiece> {
		let bytes = chunk;
		if (this.#carried.length > 0) {
			bytes = Buffer.concat([this.#carried, chunk]);
			this.#carried = new Uint8Array();
		}
		let start = 0;
		let at = 0;
		while (at < bytes.length) {
			switch (this.#step) {
				case "magic": {
					if (bytes.length - at < 4) {
						this.#carried = bytes.slice(at);
						return;
					}
					start = at;
					const magic = Buffer.from(bytes.buffer, bytes.byteOffset + at, 4).readUInt32LE();
					at += 4;
					if (magic === 0xfd2fb528) {
						this.#step = "descriptor";
					} else if (magic >= 0x184d2a50 && magic <= 0x184d2a5f) {
						this.#step = "skip-size";
					} else {
						throw broken("bytes between frames are none");
					}
					break;
				}
				case "descriptor": {
					const descriptor = bytes[at++] ?? 0;
					const isSingle = (descriptor & 0x20) !== 0;
					const sizeFlag = descriptor >> 6;
					this.#hasChecksum = (descriptor & 4) !== 0;
					const dictionary = [0, 1, 2, 4][descriptor & 3] ?? 0;
					const contentSize = sizeFlag === 0 ? (isSingle ? 1 : 0) : 1 << sizeFlag;
					this.#pass("header", (isSingle ? 0 : 1) + dictionary + contentSize);
					break;
				}
				case "block-size": {
					at = this.#gather(bytes, at, 3);
					if (this.#gathered === 3) {
						this.#isLast = (this.#number & 1) !== 0;
						const isRepeated = ((this.#number >> 1) & 3) === 1;
						this.#pass("block", isRepeated ? 1 : this.#number >> 3);
					}
					break;
				}
				case "skip-size": {
					at = this.#gather(bytes, at, 4);
					if (this.#gathered === 4) {
						this.#pass("skip", this.#number);
					}
					break;
				}
				case "header":
				case "block":
				case "checksum":
				case "skip": {
					const taken = Math.min(this.#left, bytes.length - at);
					at += taken;
					this.#left -= taken;
				}
			}
			if (this.#left === 0 && this.#passed()) {
				yield { bytes: bytes.subarray(start, at), ends: true };
				start = at;
			}
		}
		const isInFrame = this.#step !== "magic" && this.#step !== "skip" && this.#step !== "skip-size";
		if (isInFrame && start < bytes.length) {
			yield { bytes: bytes.subarray(start), ends: false };
		}
	}

	/** The input is over. */
	end(): void {
		if (this.#step !== "magic" || this.#carried.length > 0) {
			throw broken("unexpected end");
		}
	}

	/** Goes on after bytes that were passed over, or stays where it is. True if a frame has ended. */
	#passed(): boolean {
		switch (this.#step) {
			case "header":
				this.#pass("block-size", 0);
				return false;
			case "block":
				if (!this.#isLast) {
					this.#pass("block-size", 0);
					return false;
				}
				this.#pass(this.#hasChecksum ? "checksum" : "magic", this.#hasChecksum ? 4 : 0);
				return !this.#hasChecksum;
			case "checksum":
				this.#pass("magic", 0);
				return true;
			case "skip":
				this.#pass("magic", 0);
				return false;
			case "magic":
			case "descriptor":
			case "block-size":
			case "skip-size":
				return false;
		}
	}

	#pass(step: Step, bytes: number): void {
		this.#step = step;
		this.#left = bytes;
		this.#number = 0;
		this.#gathered = 0;
	}

	#gather(bytes: Uint8Array, at: number, wanted: number): number {
		while (at < bytes.length && this.#gathered < wanted) {
			this.#number += (bytes[at++] ?? 0) * 2 ** (8 * this.#gathered++);
		}
		return at;
	}
}

type Step = "magic" | "descriptor" | "header" | "block-size" | "block" | "checksum" | "skip-size" | "skip";

function broken(text: string): SlipwayError {
	return new SlipwayError("data-loss", `zstd stream is damaged or cut off: ${text}`);
}
