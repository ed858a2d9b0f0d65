import { constants } from "node:os";
import { cFunction, closeDescriptor, errno, errnoNumber, ffi } from "./ffi.ts";
import type { ExitStatus } from "./sys.ts";

/**
 * Waiting for children of posix_spawn. A process descriptor (pidfd) becomes readable when its process ends; libuv polls it
 * beside everything else, so nothing is asked in vain and nothing is late. Then this one process is reaped by its id.
 */

const pidfdOpen = cFunction<[number, number, number]>("syscall", "long", ["long", "long", "long"]);
/** The same on all architectures. */
const pidfdOpenNumber = 434;
const waitpid = cFunction<[number, Int32Array, number]>("waitpid", "int", ["int", "void *", "int"]);
const noHang = 1;

/** Between questions where the kernel (before 5.3) or a sandbox has no process descriptors. */
const pollMs = 5;

/** Calls back once, after the child was reaped. Keeps the event loop alive until then. */
export function whenEnded(pid: number, callback: (status: ExitStatus) => void): void {
	const fd = pidfdOpen(pidfdOpenNumber, pid, 0);
	if (fd < 0) {
		const timer = setInterval(() => {
			const status = reap(pid);
			if (status !== undefined) {
				clearInterval(timer);
				callback(status);
			}
		}, pollMs);
		return;
	}
	const handle = ffi().koffi.node.poll(fd, { readable: true }, () => {
		const status = reap(pid);
		if (status !== undefined) {
			handle.close();
			closeDescriptor(fd);
			callback(status);
		}
	});
}

/** The status of the child if it has ended; it is gone then. */
function reap(pid: number): ExitStatus | undefined {
	const word = new Int32Array(1);
	for (;;) {
		const answer = waitpid(pid, word, noHang);
		if (answer === pid) {
			return decodeStatus(word[0] ?? 0);
		}
		if (answer === 0) {
			return undefined;
		}
		// ECHILD: someone else in this process reaped it (a library that waits for any child); its status is lost.
		if (errno() !== errnoNumber.EINTR) {
			return { code: 255 };
		}
	}
}

const signalNames: ReadonlyMap<number, NodeJS.Signals> = new Map(
	Object.entries(constants.signals).map(([name, number]) => [number, name as NodeJS.Signals]),
);

/** wait(2): the low seven bits are the signal, the next byte is the exit code. */
function decodeStatus(word: number): ExitStatus {
	const signal = word & 0x7f;
	if (signal === 0) {
		return { code: (word >> 8) & 0xff };
	}
	const name = signalNames.get(signal);
	return name === undefined ? { code: 128 + signal } : { code: 128 + signal, signal: name };
}
