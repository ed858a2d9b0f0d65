import { MessageChannel, type MessagePort } from "node:worker_threads";
import { SlipwayError, toError } from "../errors/errors.ts";
import { fromPlainError, type PlainError, toPlainError } from "./job.ts";

/**
 * A stream of bytes between threads over a message port. The receiver grants credit in bytes, so that at most
 * `windowBytes` (and one chunk) are under way; a slow reader slows the writer. Each chunk is copied once and then moved.
 */
export interface ByteChannel {
	readonly sender: MessagePort;
	readonly receiver: MessagePort;
}

const windowBytes = 4 << 20;

type ToReceiver =
	| { readonly kind: "chunk"; readonly bytes: Uint8Array }
	| { readonly kind: "end" }
	| { readonly kind: "failed"; readonly error: PlainError };

type ToSender = { readonly kind: "credit"; readonly bytes: number } | { readonly kind: "stop" };

/** Hand one of the ports to a job in its input and in `transfer`. */
export function createByteChannel(): ByteChannel {
	const { port1, port2 } = new MessageChannel();
	return { sender: port1, receiver: port2 };
}

/**
 * Sends all of `chunks` and closes the port. Resolves when the last byte was handed over, or when the receiver stopped
 * before (then the source is closed without error). An error of the source, or an abort, fails both ends.
 */
export async function sendBytes(
	port: MessagePort,
	chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
	options: { readonly signal: AbortSignal },
): Promise<void> {
	const { signal } = options;
	let credit = 0;
	let stopped = false;
	let wake: () => void = () => {};
	const onMessage = (message: ToSender): void => {
		if (message.kind === "credit") {
			credit += message.bytes;
		} else {
			stopped = true;
		}
		wake();
	};
	const onClose = (): void => {
		stopped = true;
		wake();
	};
	const onAbort = (): void => wake();
	port.on("message", onMessage);
	port.on("close", onClose);
	signal.addEventListener("abort", onAbort);
	const iterator =
		Symbol.asyncIterator in chunks ? chunks[Symbol.asyncIterator]() : chunks[Symbol.iterator]();
	const post = (message: ToReceiver, transfer: ArrayBuffer[] = []): void =>
		port.postMessage(message, transfer);
	/** Resolves at the next credit, stop or abort. */
	const event = (): Promise<undefined> =>
		new Promise((resolve) => {
			wake = () => resolve(undefined);
		});
	let finished = false;
	try {
		for (;;) {
			signal.throwIfAborted();
			if (stopped) {
				return;
			}
			if (credit <= 0) {
				await event();
				continue;
			}
			const next = await nextUnless(iterator.next(), event, () => stopped || signal.aborted);
			if (next === undefined) {
				continue;
			}
			if (next.done === true) {
				finished = true;
				post({ kind: "end" });
				return;
			}
			if (next.value.length > 0) {
				const bytes = new Uint8Array(next.value);
				credit -= bytes.length;
				post({ kind: "chunk", bytes }, [bytes.buffer]);
			}
		}
	} catch (thrown) {
		finished = !signal.aborted;
		const error = signal.aborted ? toError(signal.reason) : toError(thrown);
		post({ kind: "failed", error: toPlainError(error) });
		throw error;
	} finally {
		signal.removeEventListener("abort", onAbort);
		port.off("message", onMessage);
		port.off("close", onClose);
		port.close();
		if (!finished) {
			// Not awaited: a source that hangs must not hold up whoever gave up on it.
			void Promise.resolve(iterator.return?.()).catch(() => {});
		}
	}
}

/** The next chunk, or `undefined` as soon as `done()` holds after an event. */
async function nextUnless<T>(
	pending: Promise<T> | T,
	event: () => Promise<undefined>,
	done: () => boolean,
): Promise<T | undefined> {
	if (!(pending instanceof Promise)) {
		return pending;
	}
	for (;;) {
		const next = await Promise.race([pending, event()]);
		if (next !== undefined) {
			return next;
		}
		if (done()) {
			pending.catch(() => {});
			return undefined;
		}
	}
}

/** What arrives at the port, until its end. Leaving the loop early stops the sender. */
export async function* receiveBytes(
	port: MessagePort,
	options: { readonly signal: AbortSignal },
): AsyncGenerator<Uint8Array, void> {
	const { signal } = options;
	const arrived: ToReceiver[] = [];
	let wake: () => void = () => {};
	let closed = false;
	const onMessage = (message: ToReceiver): void => {
		arrived.push(message);
		wake();
	};
	const onClose = (): void => {
		closed = true;
		wake();
	};
	const onAbort = (): void => wake();
	const post = (message: ToSender): void => port.postMessage(message);
	port.on("message", onMessage);
	port.on("close", onClose);
	signal.addEventListener("abort", onAbort);
	try {
		post({ kind: "credit", bytes: windowBytes });
		for (;;) {
			if (signal.aborted) {
				throw toError(signal.reason);
			}
			const message = arrived.shift();
			if (message === undefined) {
				if (closed) {
					throw new SlipwayError("unavailable", "stream between threads ended without its last chunk");
				}
				await new Promise<void>((resolve) => {
					wake = resolve;
				});
				continue;
			}
			switch (message.kind) {
				case "end":
					return;
				case "failed":
					throw fromPlainError(message.error);
				case "chunk":
					yield message.bytes;
					post({ kind: "credit", bytes: message.bytes.length });
			}
		}
	} finally {
		signal.removeEventListener("abort", onAbort);
		port.off("message", onMessage);
		port.off("close", onClose);
		post({ kind: "stop" });
		port.close();
	}
}
