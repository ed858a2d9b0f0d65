import { closeSync, openSync, readSync } from "node:fs";

/** The first `max` bytes of a file, or all of it: one that says nothing of its size, such as the pipe of a shell's `<(…)`, too. */
export function readStart(path: string, max: number): Buffer {
	const fd = openSync(path, "r");
	try {
		const bytes = Buffer.alloc(max);
		let length = 0;
		while (length < max) {
			const count = readSync(fd, bytes, length, max - length, null);
			if (count === 0) {
				break;
			}
			length += count;
		}
		return bytes.subarray(0, length);
	} finally {
		closeSync(fd);
	}
}
