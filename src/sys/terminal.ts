import { closeSync, constants, openSync } from "node:fs";
import { toError } from "../errors/errors.ts";
import { cFunction, check } from "./ffi.ts";
import type { Terminal, TerminalSize } from "./sys.ts";

const ioctl = cFunction<[number, number, Int32Array | Uint16Array]>("ioctl", "int", [
	"int",
	"long",
	"void *",
]);

const tiocgptn = 0x80045430;
const tiocsptlck = 0x40045431;
const tiocswinsz = 0x5414;
const tiocgwinsz = 0x5413;

/** A new pseudo terminal. Give `path` to a child as its descriptors with `group: "session"`; read and write `fd` here. */
export function openTerminal(size: TerminalSize): Terminal {
	let fd: number;
	try {
		fd = openSync("/dev/ptmx", constants.O_RDWR | constants.O_NOCTTY);
	} catch (thrown) {
		throw toError(thrown);
	}
	let open = true;
	const close = (): void => {
		if (open) {
			open = false;
			closeSync(fd);
		}
	};
	try {
		check(ioctl(fd, tiocsptlck, new Int32Array([0])), () => "unlock of pseudo terminal");
		const number = new Int32Array(1);
		check(ioctl(fd, tiocgptn, number), () => "number of pseudo terminal");
		setTerminalSize(fd, size);
		return { fd, path: `/dev/pts/${number[0]}`, [Symbol.dispose]: close };
	} catch (thrown) {
		close();
		throw thrown;
	}
}

/** The foreground process group of the terminal gets SIGWINCH. */
export function setTerminalSize(fd: number, size: TerminalSize): void {
	check(
		ioctl(fd, tiocswinsz, new Uint16Array([size.rows, size.columns, 0, 0])),
		() => `resize of terminal, descriptor ${fd}`,
	);
}

export function getTerminalSize(fd: number): TerminalSize {
	const words = new Uint16Array(4);
	check(ioctl(fd, tiocgwinsz, words), () => `size of terminal, descriptor ${fd}`);
	return { rows: words[0] ?? 0, columns: words[1] ?? 0 };
}
