import { closeSync, constants, openSync, readSync, writevSync } from "node:fs";
import { MessageChannel, type MessagePort } from "node:worker_threads";
import { fromPlainError, type PlainError, toPlainError } from "../async/job.ts";
import { SlipwayError, toError, wrap } from "../errors/errors.ts";

/**
 * A file that one thread writes and another one reads while it grows. What comes from the network has to be kept on disk anyway;
 * read from there by the thread that works on it, no byte is copied between threads and no buffer is made for it. The port tells
 * how far the file has got.
 */
export interface GrowingFile {
	readonly path: string;
	readonly port: MessagePort;
}

type ToReader =
	| { readonly kind: "grown"; readonly bytes: number }
	| { readonly kind: "end" }
	| { readonly kind: "failed"; readonly error: PlainError };

const batchBytes = 512 << 10;
const chunkBytes = 256 << 10;

/** The file and the writer of it; hand `file` to a job in its input and `file.port` in `transfer`. */
export function createGrowingFile(path: string): {
	readonly file: GrowingFile;
	/** Writes all chunks to a new file. An error of the source goes to both sides. */
	write(chunks: AsyncIterable<Uint8Array>, options: { readonly signal: AbortSignal }): Promise<void>;
} {
	const { port1: port, port2 } = new MessageChannel();
	const post = (message: ToReader): void => port.postMessage(message);
	return {
		file: { path, port: port2 },
		async write(chunks, { signal }) {
			let fd = -1;
			let bytes = 0;
			let batch: Uint8Array[] = [];
			let held = 0;
			let isLeft = false;
			port.on("close", () => {
				isLeft = true;
			});
			port.unref();
			const flush = (): void => {
				writeAll(fd, batch, held);
				bytes += held;
				batch = [];
				held = 0;
				post({ kind: "grown", bytes });
			};
			try {
				fd = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
				for await (const chunk of chunks) {
					if (signal.aborted) {
						throw toError(signal.reason);
					}
					// The reader has failed: nobody wants the rest.
					if (isLeft) {
						return;
					}
					batch.push(chunk);
					held += chunk.length;
					if (held >= batchBytes) {
						flush();
					}
				}
				if (held > 0) {
					flush();
				}
				post({ kind: "end" });
			} catch (thrown) {
				const error = signal.aborted ? toError(signal.reason) : wrap(thrown, "receive blob");
				post({ kind: "failed", error: toPlainError(error) });
				throw error;
			} finally {
				if (fd >= 0) {
					closeSync(fd);
				}
				port.close();
			}
		},
	};
}

/** The kernel takes 1024 parts at a time, and fewer bytes than asked for on a nearly full disk. */
function writeAll(fd: number, parts: readonly Uint8Array[], bytes: number): void {
	const whole = parts.length > 1000 ? [Buffer.concat(parts)] : parts;
	let written = writevSync(fd, whole);
	while (written < bytes) {
		written += writevSync(fd, [Buffer.concat(whole).subarray(written)]);
	}
}

/** What is in the file, as it comes, until its writer has ended. Leaving the loop early tells the writer. */
export async function* readGrowingFile(
	{ path, port }: GrowingFile,
	options: { readonly signal: AbortSignal },
): AsyncGenerator<Uint8Array, void> {
	const { signal } = options;
	let available = 0;
	let end: "no" | "yes" | PlainError = "no";
	let wake: () => void = () => {};
	port.on("message", (message: ToReader) => {
		if (message.kind === "grown") {
			available = message.bytes;
		} else {
			end = message.kind === "end" ? "yes" : message.error;
		}
		wake();
	});
	port.on("close", () => {
		if (endOf(end) === "no") {
			end = toPlainError(
				new SlipwayError("unavailable", "stream between threads ended without its last chunk"),
			);
		}
		wake();
	});
	const onAbort = (): void => wake();
	signal.addEventListener("abort", onAbort);
	let fd = -1;
	try {
		for (let at = 0; ; ) {
			if (signal.aborted) {
				throw toError(signal.reason);
			}
			if (at < available) {
				if (fd < 0) {
					fd = openSync(path, "r");
				}
				const chunk = Buffer.allocUnsafeSlow(Math.min(chunkBytes, available - at));
				const got = readSync(fd, chunk, 0, chunk.length, at);
				if (got === 0) {
					throw new SlipwayError("data-loss", `${path} was cut while it was read`);
				}
				at += got;
				yield chunk.subarray(0, got);
				continue;
			}
			const ended = endOf(end);
			if (ended === "yes") {
				return;
			}
			if (ended !== "no") {
				throw fromPlainError(ended);
			}
			await new Promise<void>((resolve) => {
				wake = resolve;
			});
		}
	} catch (thrown) {
		throw toError(thrown);
	} finally {
		signal.removeEventListener("abort", onAbort);
		port.close();
		if (fd >= 0) {
			closeSync(fd);
		}
	}
}

/** The compiler does not see that messages change it. */
function endOf(end: "no" | "yes" | PlainError): "no" | "yes" | PlainError {
	return end;
}
