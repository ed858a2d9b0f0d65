/** Small pieces are copied together, as each view would cost more than its bytes. */
const smallBytes = 4096;
const blockBytes = 64 << 10;

/** Bytes in the order in which they came, in few pieces. */
export class HeldBytes {
	#bytes = 0;
	#pieces: Uint8Array[] = [];
	#head = 0;
	/** The last piece's memory, if there is room behind it. */
	#block: Uint8Array | undefined;
	#used = 0;

	get bytes(): number {
		return this.#bytes;
	}

	add(piece: Uint8Array): void {
		this.#bytes += piece.length;
		if (piece.length >= smallBytes) {
			this.#block = undefined;
			this.#pieces.push(piece);
			return;
		}
		if (this.#block === undefined || this.#used + piece.length > blockBytes) {
			this.#block = new Uint8Array(blockBytes);
			this.#used = 0;
			this.#pieces.push(this.#block.subarray(0, 0));
		}
		this.#block.set(piece, this.#used);
		this.#used += piece.length;
		this.#pieces[this.#pieces.length - 1] = this.#block.subarray(0, this.#used);
	}

	/** The next piece, not empty while there are bytes. */
	take(): Uint8Array {
		const piece = this.#pieces[this.#head] ?? new Uint8Array();
		this.#head++;
		this.#bytes -= piece.length;
		if (this.#head === this.#pieces.length) {
			this.clear();
		}
		return piece;
	}

	clear(): void {
		this.#bytes = 0;
		this.#pieces = [];
		this.#head = 0;
		this.#block = undefined;
		this.#used = 0;
	}
}
