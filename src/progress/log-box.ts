import { characterWidth } from "./text-width.ts";

/** What comes before this many characters has scrolled away when the box is drawn. */
const maxPending = 8192;
const maxSequence = 64;

type State = "text" | "escape" | "csi" | "osc" | "osc-escape";

/**
 * The last lines of a step's output as a terminal would show them: a small terminal of its own, so that programs that
 * draw progress bars are shown right. Knows line breaks, cursor movement and erasing; colors are dropped.
 */
export class LogBox {
	#rows: string[][];
	#height: number;
	#width: number;
	#x = 0;
	#y = 0;
	#saved = { x: 0, y: 0 };
	#state: State = "text";
	#sequence = "";
	#pending = "";

	constructor(height: number, width: number) {
		this.#height = Math.max(height, 1);
		this.#width = Math.max(width, 6);
		this.#rows = Array.from({ length: this.#height }, () => this.#blankRow());
	}

	/** The lines that are not blank, filled with spaces to the width. */
	get lines(): readonly string[] {
		this.#interpret();
		return this.#rows.filter((row) => row.some((cell) => cell !== " ")).map((row) => row.join(""));
	}

	/** A narrower box cuts lines at the right; a lower one keeps the lines around the cursor. */
	resize(height: number, width: number): void {
		this.#interpret();
		const newHeight = Math.max(height, 1);
		const newWidth = Math.max(width, 6);
		if (newHeight === this.#height && newWidth === this.#width) {
			return;
		}
		this.#width = newWidth;
		this.#rows = this.#rows.map((row) => Array.from({ length: newWidth }, (_, x) => row[x] ?? " "));
		while (this.#rows.length > newHeight) {
			if (this.#y >= newHeight) {
				this.#rows.shift();
				this.#y--;
			} else {
				this.#rows.pop();
			}
		}
		while (this.#rows.length < newHeight) {
			this.#rows.push(this.#blankRow());
		}
		this.#height = newHeight;
		this.#x = Math.min(this.#x, newWidth - 1);
	}

	/** Cheap: what is written is interpreted when the box is looked at, and only the end of it if it is much. */
	write(text: string): void {
		this.#pending += text;
		if (this.#pending.length > 4 * maxPending) {
			this.#pending = endOf(this.#pending);
		}
	}

	#interpret(): void {
		const text = endOf(this.#pending);
		this.#pending = "";
		for (const character of text) {
			this.#accept(character);
		}
	}

	#accept(character: string): void {
		switch (this.#state) {
			case "text":
				this.#acceptText(character);
				return;
			case "escape":
				this.#state = character === "[" ? "csi" : character === "]" ? "osc" : "text";
				if (this.#state === "text") {
					this.#command(character, "");
				}
				return;
			case "csi":
				if (/[@-~]/.test(character)) {
					this.#state = "text";
					this.#command(character, this.#sequence);
				} else if ((this.#sequence += character).length > maxSequence) {
					this.#state = "text";
				}
				return;
			case "osc":
				if (character === "\x07" || (this.#sequence += character).length > 1024) {
					this.#state = "text";
				} else if (character === "\x1b") {
					this.#state = "osc-escape";
				}
				return;
			case "osc-escape":
				this.#state = "text";
				return;
		}
	}

	#acceptText(character: string): void {
		switch (character) {
			case "\x1b":
				this.#state = "escape";
				this.#sequence = "";
				return;
			case "\x9b":
				this.#state = "csi";
				this.#sequence = "";
				return;
			case "\n":
				this.#y++;
				this.#x = 0;
				return;
			case "\r":
				this.#x = 0;
				return;
			case "\b":
				this.#backspace();
				return;
			case "\t":
				this.#x = Math.min(this.#x + 8 - (this.#x % 8), this.#width - 1);
				return;
			default:
				this.#put(character, characterWidth(character));
		}
	}

	#put(character: string, width: number): void {
		if (width === 0) {
			return;
		}
		if (this.#x + width > this.#width) {
			this.#x = 0;
			this.#y++;
		}
		if (this.#y >= this.#height) {
			this.#rows.push(this.#blankRow());
			this.#rows.shift();
			this.#y = this.#height - 1;
		}
		const row = this.#rows[this.#y];
		if (row !== undefined) {
			row[this.#x] = character;
			if (width === 2) {
				row[this.#x + 1] = "";
			}
		}
		this.#x += width;
		if (this.#x >= this.#width) {
			this.#x = 0;
			this.#y++;
		}
	}

	#backspace(): void {
		if (this.#x > 0) {
			this.#x--;
		} else if (this.#y > 0) {
			this.#y--;
			this.#x = this.#width - 1;
		}
	}

	/** ECMA-48 final byte and parameters. */
	#command(final: string, parameters: string): void {
		if (!/^[\d;]*$/.test(parameters)) {
			return;
		}
		const args = parameters === "" ? [] : parameters.split(";").map(Number);
		const count = args[0] ?? 1;
		switch (final) {
			case "A":
				this.#moveTo(this.#y - count, this.#x);
				return;
			case "B":
				this.#moveTo(this.#y + count, this.#x);
				return;
			case "C":
				this.#moveTo(this.#y, this.#x + count);
				return;
			case "D":
				this.#moveTo(this.#y, this.#x - count);
				return;
			case "G":
				this.#moveTo(this.#y, count - 1);
				return;
			case "H":
			case "f":
				this.#moveTo(count - 1, (args[1] ?? 1) - 1);
				return;
			case "s":
			case "7":
				this.#saved = { x: this.#x, y: this.#y };
				return;
			case "u":
			case "8":
				this.#moveTo(this.#saved.y, this.#saved.x);
				return;
			case "K":
				this.#eraseInRow(this.#y, args[0] ?? 0);
				return;
			case "J":
				this.#eraseRows(args[0] ?? 0);
				return;
		}
	}

	#moveTo(y: number, x: number): void {
		this.#y = Math.min(Math.max(y, 0), this.#height - 1);
		this.#x = Math.min(Math.max(x, 0), this.#width - 1);
	}

	/** 0: from the cursor on, 1: up to the cursor, 2: all. */
	#eraseInRow(y: number, direction: number): void {
		this.#rows[y]?.fill(" ", direction === 0 ? this.#x : 0, direction === 1 ? this.#x + 1 : this.#width);
	}

	/** As in a row; the row of the cursor goes whole. */
	#eraseRows(direction: number): void {
		const from = direction === 0 ? this.#y : 0;
		const to = direction === 1 ? this.#y + 1 : this.#height;
		for (const row of this.#rows.slice(from, to)) {
			row.fill(" ");
		}
	}

	#blankRow(): string[] {
		return new Array<string>(this.#width).fill(" ");
	}
}

/** From the beginning of a line on, if there is one. */
function endOf(text: string): string {
	const from = text.length - maxPending;
	return from <= 0 ? text : text.slice(Math.max(text.indexOf("\n", from) + 1, from));
}
