import { StringDecoder } from "node:string_decoder";

const tailLength = 10;

/**
 * The output of one vertex as lines. A line may arrive in pieces; the last one may be unfinished (`isPartial`). Text
 * is appended and taken in time linear to its length, whatever the pieces.
 */
export class VertexLog {
	readonly #decoder = new StringDecoder("utf8");
	/** Finished lines that were not taken yet. */
	#lines: string[] = [];
	/** What of `#lines[0]` is not printed, if its beginning is. */
	#firstRest: string | undefined;
	#partial: { readonly whole: string; readonly rest: string; readonly isPrinted: boolean } | undefined;
	#tail: readonly string[] = [];

	get isPartial(): boolean {
		return this.#partial !== undefined;
	}

	/** `stamp` goes before each line that begins in this piece. Returns the text that was decoded. */
	append(data: Uint8Array, stamp: string): string {
		const text = this.#decoder.write(data);
		this.#appendText(text, stamp);
		return text;
	}

	#appendText(text: string, stamp: string): void {
		if (text === "") {
			return;
		}
		const pieces = text.split("\n");
		const last = pieces.pop() ?? "";
		const finished: string[] = [];
		for (const piece of pieces) {
			if (this.#partial === undefined) {
				finished.push(stamp + piece);
				continue;
			}
			const { whole, rest, isPrinted } = this.#partial;
			finished.push(whole + piece);
			this.#firstRest = isPrinted ? rest + piece : undefined;
			this.#partial = undefined;
		}
		if (last !== "") {
			const { whole, rest, isPrinted } = this.#partial ?? { whole: stamp, rest: stamp, isPrinted: false };
			this.#partial = { whole: whole + last, rest: rest + last, isPrinted };
		}
		this.#keep(finished);
	}

	#keep(finished: readonly string[]): void {
		if (finished.length > 0) {
			for (const line of finished) {
				this.#lines.push(line);
			}
			this.#tail = [...this.#tail, ...finished.slice(-tailLength)].slice(-tailLength);
		}
	}

	/**
	 * All that was not printed yet, `prefix` before each line. What was printed of an unfinished line is continued,
	 * unless `restartLine` was called since.
	 */
	take(prefix: string): string {
		let text = "";
		if (this.#lines.length > 0) {
			const [first = "", ...others] = this.#lines;
			text = [this.#firstRest ?? prefix + first, ...others].join(`\n${prefix}`);
			text += "\n";
			this.#lines = [];
			this.#firstRest = undefined;
		}
		if (this.#partial !== undefined) {
			const { whole, rest, isPrinted } = this.#partial;
			text += isPrinted ? rest : prefix + whole;
			this.#partial = { whole, rest: "", isPrinted: true };
		}
		return text;
	}

	/** Something else was printed: an unfinished line is to be printed anew, from its beginning. */
	restartLine(): void {
		this.#firstRest = undefined;
		if (this.#partial !== undefined) {
			this.#partial = { ...this.#partial, isPrinted: false };
		}
	}

	/** The unfinished line, which must have been taken, counts as finished. */
	finishLine(): void {
		if (this.#partial !== undefined) {
			this.#tail = [...this.#tail, this.#partial.whole].slice(-tailLength);
			this.#partial = undefined;
		}
	}

	/** The last lines, printed or not. */
	get tail(): readonly string[] {
		return this.#partial === undefined ? this.#tail : [...this.#tail, this.#partial.whole].slice(-tailLength);
	}

	/** All lines that were not taken. */
	get untaken(): readonly string[] {
		return this.#partial === undefined ? this.#lines : [...this.#lines, this.#partial.whole];
	}

	/** Forgets the lines, for a vertex that nobody will ask about. */
	clear(): void {
		this.#lines = [];
		this.#firstRest = undefined;
		this.#partial = undefined;
		this.#tail = [];
	}
}
