import { closeSync, constants, openSync, readSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { MessageStream } from "../api/grpc.ts";
import type { Packet } from "../api/services/packet.ts";
import { SlipwayError, toError } from "../errors/errors.ts";
import { type ByteString, fsPath } from "../sys/byte-names.ts";
import type { Announced } from "./announce.ts";

export interface SendOptions {
	readonly signal: AbortSignal;
	/** Called with the bytes of contents that were handed over so far. */
	readonly onProgress?: (bytes: number) => void;
}

/** Go's senders use 32 KiB; larger pieces cost less a byte and receivers take up to 16 MiB. */
const chunkBytes = 256 << 10;
/** The thread is others' too: work goes in slices of this length. */
const sliceMs = 8;

const openFlags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/**
 * The sending side of fsutil's transfer (send.go): announces the entries and gives the contents that are asked for. Files are read
 * one after the other: reads are synchronous, so that several at once would not be faster. When it has ended, no file is open.
 */
export async function sendTree(
	stream: MessageStream<Packet, Packet>,
	entries: Iterable<Announced | undefined>,
	options: SendOptions,
): Promise<void> {
	const { signal } = options;
	const sender = new Sender(stream, options);
	const onAbort = (): void => sender.stop(toError(signal.reason));
	if (signal.aborted) {
		onAbort();
	}
	signal.addEventListener("abort", onAbort);
	const walked = sender.walk(entries);
	const served = sender.serve();
	try {
		await Promise.all([walked, served, sender.listen()]);
	} catch (thrown) {
		const error = signal.aborted ? toError(signal.reason) : toError(thrown);
		sender.stop(error);
		await Promise.allSettled([walked, served]);
		throw error;
	} finally {
		signal.removeEventListener("abort", onAbort);
	}
}

const nothing = new Uint8Array(0);

interface Content {
	readonly source: ByteString;
	/** As announced. */
	readonly size: number;
}

/** Small files are read into this first. Reading is synchronous, so there is one for all. */
let scratch: Buffer | undefined;

class Sender {
	readonly #stream: MessageStream<Packet, Packet>;
	readonly #options: SendOptions;
	/** By number, until they are asked for. */
	readonly #contents = new Map<number, Content>();
	readonly #wanted: { readonly id: number; readonly content: Content }[] = [];
	readonly #stopped: PromiseWithResolvers<never> = Promise.withResolvers();
	#error: SlipwayError | undefined;
	#wake: () => void = () => {};
	#bytes = 0;
	#done = false;
	#sliceEnd: number = performance.now() + sliceMs;

	constructor(stream: MessageStream<Packet, Packet>, options: SendOptions) {
		this.#stream = stream;
		this.#options = options;
		this.#stopped.promise.catch(() => undefined);
	}

	async walk(entries: Iterable<Announced | undefined>): Promise<void> {
		try {
			let id = 0;
			for (const entry of entries) {
				if (entry === undefined) {
					continue;
				}
				const { stat, source } = entry;
				if (source !== undefined && stat.linkname === "") {
					this.#contents.set(id, { source, size: stat.size });
				}
				id += 1;
				const room = this.#send({ kind: "stat", stat });
				if (room !== undefined) {
					await room;
				}
				if (performance.now() > this.#sliceEnd) {
					await this.#nextSlice();
				}
			}
			await this.#send({ kind: "stat", stat: undefined });
		} catch (thrown) {
			const error = toError(thrown);
			if (this.#error === undefined) {
				this.#sendSoon({ kind: "error", message: error.message });
			}
			throw error;
		}
	}

	async serve(): Promise<void> {
		for (let at = 0; !this.#done || at < this.#wanted.length; ) {
			this.#check();
			const next = this.#wanted[at];
			if (next === undefined) {
				this.#wanted.length = 0;
				at = 0;
				await new Promise<void>((resolve) => {
					this.#wake = resolve;
				});
				continue;
			}
			at += 1;
			if (next.content.size < chunkBytes / 2) {
				const room = this.#small(next.id, next.content.source);
				if (room !== undefined) {
					await room;
				}
			} else {
				await this.#large(next.id, next.content.source);
			}
			if (performance.now() > this.#sliceEnd) {
				await this.#nextSlice();
			}
		}
	}

	async listen(): Promise<void> {
		for await (const packet of this.#stream) {
			switch (packet.kind) {
				case "request": {
					const content = this.#contents.get(packet.id);
					if (content === undefined) {
						throw new SlipwayError("invalid-argument", `invalid file id ${packet.id}`);
					}
					this.#contents.delete(packet.id);
					this.#wanted.push({ id: packet.id, content });
					this.#wake();
					break;
				}
				case "finish":
					this.#done = true;
					this.#wake();
					await this.#send({ kind: "finish" });
					return;
				case "error":
					throw new SlipwayError("unknown", `error from receiver: ${packet.message}`);
				default:
					break;
			}
		}
		throw new SlipwayError("unavailable", "the receiver of files went away");
	}

	/** Ends what still runs. */
	stop(error: SlipwayError): void {
		this.#error ??= error;
		this.#stopped.reject(error);
		this.#wake();
	}

	/** The whole file in one packet, unless it grew. */
	#small(id: number, source: ByteString): Promise<void> | undefined {
		const fd = tryOpen(source);
		if (fd === undefined) {
			return this.#end(id);
		}
		scratch ??= Buffer.allocUnsafeSlow(chunkBytes);
		try {
			for (;;) {
				const count = read(fd, scratch);
				if (count > 0) {
					const data = Buffer.allocUnsafe(count);
					scratch.copy(data, 0, 0, count);
					this.#send({ kind: "data", id, data })?.catch(() => undefined);
				}
				if (count < chunkBytes) {
					break;
				}
			}
		} finally {
			closeSync(fd);
		}
		return this.#end(id);
	}

	async #large(id: number, source: ByteString): Promise<void> {
		const fd = tryOpen(source);
		if (fd !== undefined) {
			try {
				for (;;) {
					const buffer = Buffer.allocUnsafeSlow(chunkBytes);
					const count = read(fd, buffer);
					if (count > 0) {
						await this.#send({ kind: "data", id, data: buffer.subarray(0, count) });
					}
					if (count < chunkBytes) {
						break;
					}
					if (performance.now() > this.#sliceEnd) {
						await this.#nextSlice();
					}
				}
			} finally {
				closeSync(fd);
			}
		}
		await this.#end(id);
	}

	/** Also what becomes of a file that cannot be read: it is empty to the receiver, who sees that it is not what was announced. */
	#end(id: number): Promise<void> | undefined {
		return this.#send({ kind: "data", id, data: nothing });
	}

	#send(packet: Packet): Promise<void> | undefined {
		this.#check();
		this.#bytes += packet.kind === "data" ? packet.data.length : 0;
		this.#options.onProgress?.(this.#bytes);
		const room = this.#stream.send(packet);
		return room === undefined ? undefined : Promise.race([room, this.#stopped.promise]);
	}

	#sendSoon(packet: Packet): void {
		try {
			this.#stream.send(packet)?.catch(() => undefined);
		} catch {
			// The other side is gone and needs no word.
		}
	}

	#check(): void {
		if (this.#error !== undefined) {
			throw this.#error;
		}
	}

	async #nextSlice(): Promise<void> {
		await nextTurn();
		this.#sliceEnd = performance.now() + sliceMs;
		this.#check();
	}
}

function tryOpen(source: ByteString): number | undefined {
	try {
		return openSync(fsPath(source), openFlags);
	} catch {
		return undefined;
	}
}

/** Fills the buffer; less than a chunk is the end of the file, or of what can be read of it. */
function read(fd: number, buffer: Buffer): number {
	try {
		return readSync(fd, buffer, 0, chunkBytes, null);
	} catch {
		return 0;
	}
}
