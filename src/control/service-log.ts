import { closeSync, openSync, readSync, rmSync, writevSync } from "node:fs";
import { StatusResponse } from "../api/generated/control.ts";
import type { BlobInfo, ContentStore, LocalContent } from "../content/content.ts";
import { canceled, toError } from "../errors/errors.ts";
import { Digester } from "../oci/digest.ts";
import type {
	LogRecord,
	ProgressEvent,
	ProgressSink,
	StatusRecord,
	VertexRecord,
	WarningRecord,
} from "../progress/progress.ts";
import { logMessage, statusMessage, vertexMessage, warningMessage } from "./service-messages.ts";

export interface BuildLogOptions {
	/** Where the log goes when it grows, and is kept when its build has ended. */
	readonly store: ContentStore & LocalContent;
	/** How much of it is in memory. */
	readonly maxMemoryBytes?: number;
	/** Events that come within this time go into one message. */
	readonly batchMs?: number;
}

export interface BuildLogSummary {
	readonly steps: number;
	readonly cachedSteps: number;
	readonly completedSteps: number;
	readonly warnings: number;
}

/**
 * All that a build reports, once in the form in which clients get it (`StatusResponse` messages), however many there are and
 * whenever they come. It is also the form in which the history keeps it: each message after its length, 4 bytes, little endian.
 *
 * Writing never waits. A log that outgrows its memory goes to a file, which is where slow and late readers read: what a reader
 * costs is its position.
 */
export class BuildLog implements ProgressSink, Disposable {
	readonly #options: Required<BuildLogOptions>;
	readonly #digester = new Digester();
	readonly #waiting = new Set<() => void>();
	readonly #steps = new Map<string, { cached: boolean; completed: boolean }>();
	#warnings = 0;
	#pending = new Batch();
	#timer: NodeJS.Timeout | undefined;
	#lastFlush = 0;
	#ended = false;
	/** Messages after those in the file, each with its length. */
	#recent: Uint8Array[] = [];
	#recentBytes = 0;
	/** How many messages are in the file. */
	#inFile = 0;
	#file: { readonly path: string; readonly fd: number } | undefined;
	#fileBytes = 0;
	#fileError: unknown;
	#readers = 0;
	#disposed = false;

	constructor(options: BuildLogOptions) {
		this.#options = { maxMemoryBytes: 1 << 20, batchMs: 40, ...options };
	}

	write(event: ProgressEvent): void {
		if (this.#ended) {
			return;
		}
		this.#pending.add(event);
		this.#count(event);
		if (this.#pending.bytes >= maxBatchBytes) {
			this.#flush();
		} else {
			// The first of a burst waits for what comes with it, what follows for more.
			this.#timer ??= setTimeout(
				() => this.#flush(),
				Math.max(firstMs, this.#lastFlush + this.#options.batchMs - performance.now()),
			);
		}
	}

	/** Readers end after what was written so far; what is written later is not wanted. */
	end(): void {
		if (!this.#ended) {
			this.#flush();
			this.#ended = true;
			this.#wake();
		}
	}

	summary(): BuildLogSummary {
		const steps = [...this.#steps.values()];
		return {
			steps: steps.length,
			cachedSteps: steps.filter(({ cached }) => cached).length,
			completedSteps: steps.filter(({ completed }) => completed).length,
			warnings: this.#warnings,
		};
	}

	/** Every message from the first on, as it comes, until the end. */
	async *read(signal: AbortSignal): AsyncGenerator<Uint8Array, void> {
		this.#readers++;
		try {
			let count = 0;
			let offset = 0;
			for (;;) {
				checkAborted(signal);
				const messages = this.#messagesFrom(count, offset);
				if (messages.length > 0) {
					for (const message of messages) {
						count++;
						offset += message.length;
						yield message.subarray(4);
					}
				} else if (this.#ended) {
					return;
				} else {
					await this.#more(signal);
				}
			}
		} finally {
			this.#readers--;
			this.#closeFile();
		}
	}

	/** Puts the log that has ended into the store. Call once. */
	async save(signal: AbortSignal): Promise<BlobInfo> {
		if (this.#fileError !== undefined) {
			throw toError(this.#fileError);
		}
		const { store } = this.#options;
		if (this.#file === undefined) {
			const messages = this.#recent;
			return await store.write(
				(async function* () {
					yield* messages;
				})(),
				{ signal },
			);
		}
		this.#spill();
		const info = { digest: this.#digester.digest(), size: this.#fileBytes };
		await store.adopt(this.#file.path, info);
		return info;
	}

	/** Nobody will ask for it any more; who reads it may go on. */
	[Symbol.dispose](): void {
		this.end();
		this.#disposed = true;
		if (this.#file !== undefined) {
			rmSync(this.#file.path, { force: true });
		}
		this.#closeFile();
	}

	#count(event: ProgressEvent): void {
		if (event.kind === "warning") {
			this.#warnings++;
		} else if (event.kind === "vertex") {
			const { digest, cached, completed } = event.vertex;
			const step = this.#steps.get(digest);
			this.#steps.set(digest, {
				cached: cached || step?.cached === true,
				completed: completed !== undefined || step?.completed === true,
			});
		}
	}

	#flush(): void {
		clearTimeout(this.#timer);
		this.#timer = undefined;
		this.#lastFlush = performance.now();
		if (this.#pending.isEmpty) {
			return;
		}
		const batch = this.#pending;
		this.#pending = new Batch();
		const message = framed(StatusResponse.encode(batch.message()).finish());
		this.#digester.update(message);
		this.#recent.push(message);
		this.#recentBytes += message.length;
		if (this.#recentBytes > this.#options.maxMemoryBytes) {
			this.#spill();
		}
		this.#wake();
	}

	/** A disk that is full loses the log, not the build: it stays in memory then. */
	#spill(): void {
		if (this.#fileError !== undefined || this.#recent.length === 0) {
			return;
		}
		try {
			if (this.#file === undefined) {
				const path = this.#options.store.temporaryPath();
				this.#file = { path, fd: openSync(path, "wx+", 0o600) };
			}
			const bytes = Buffer.concat(this.#recent);
			for (let done = 0; done < bytes.length; ) {
				done += writevSync(this.#file.fd, [bytes.subarray(done)], this.#fileBytes + done);
			}
			this.#fileBytes += bytes.length;
			this.#inFile += this.#recent.length;
			this.#recent = [];
			this.#recentBytes = 0;
		} catch (error) {
			this.#fileError = error;
		}
	}

	/** Some whole messages from there on; none at the end of what there is. */
	#messagesFrom(count: number, offset: number): readonly Uint8Array[] {
		return count < this.#inFile && this.#file !== undefined
			? readMessages(this.#file.fd, offset, this.#fileBytes)
			: this.#recent.slice(count - this.#inFile);
	}

	#more(signal: AbortSignal): Promise<void> {
		return new Promise((resolve) => {
			const done = (): void => {
				this.#waiting.delete(done);
				signal.removeEventListener("abort", done);
				resolve();
			};
			this.#waiting.add(done);
			signal.addEventListener("abort", done);
		});
	}

	#wake(): void {
		for (const waiting of [...this.#waiting]) {
			waiting();
		}
	}

	#closeFile(): void {
		if (this.#disposed && this.#readers === 0 && this.#file !== undefined) {
			closeSync(this.#file.fd);
			this.#file = undefined;
		}
	}
}

/** Messages stay far below what clients take (16 MiB). */
const maxBatchBytes = 256 << 10;
const firstMs = 10;

/** Of the same thing only the last state is sent: a bar that moved ten times since, a step that began and ended. */
class Batch {
	readonly #vertexes = new Map<string, VertexRecord>();
	readonly #statuses = new Map<string, StatusRecord>();
	readonly #logs: LogRecord[] = [];
	readonly #warnings: WarningRecord[] = [];
	bytes = 0;

	get isEmpty(): boolean {
		return this.bytes === 0;
	}

	add(event: ProgressEvent): void {
		switch (event.kind) {
			case "vertex": {
				const { vertex } = event;
				const before = this.#vertexes.get(vertex.digest);
				// Somebody who measures how long a step ran needs each of its runs.
				const again = before?.completed !== undefined && before.started !== vertex.started;
				this.#vertexes.set(again ? `${vertex.digest} ${this.#vertexes.size}` : vertex.digest, vertex);
				this.bytes += 200 + vertex.name.length + vertex.inputs.length * 72;
				return;
			}
			case "status":
				this.#statuses.set(`${event.status.vertex} ${event.status.id}`, event.status);
				this.bytes += 150;
				return;
			case "log":
				this.#logs.push(event.log);
				this.bytes += event.log.data.length + 100;
				return;
			case "warning":
				this.#warnings.push(event.warning);
				this.bytes += 1000 + (event.warning.source?.data.length ?? 0);
				return;
		}
	}

	message(): StatusResponse {
		const vertexes = [...this.#vertexes.values()];
		vertexes.sort((a, b) => (a.started ?? 0) - (b.started ?? 0));
		return {
			vertexes: vertexes.map(vertexMessage),
			statuses: [...this.#statuses.values()].map(statusMessage),
			logs: this.#logs.map(logMessage),
			warnings: this.#warnings.map(warningMessage),
		};
	}
}

function checkAborted(signal: AbortSignal): void {
	if (signal.aborted) {
		throw canceled(signal.reason);
	}
}

function framed(message: Uint8Array): Uint8Array {
	const bytes = new Uint8Array(message.length + 4);
	new DataView(bytes.buffer).setUint32(0, message.length, true);
	bytes.set(message, 4);
	return bytes;
}

/** Each with its length in front. */
function readMessages(fd: number, from: number, end: number): readonly Uint8Array[] {
	let size = Math.min(end - from, 512 << 10);
	for (;;) {
		const bytes = new Uint8Array(size);
		readSync(fd, bytes, 0, size, from);
		const messages = splitMessages(bytes);
		if (messages.length > 0) {
			return messages;
		}
		size = 4 + new DataView(bytes.buffer).getUint32(0, true);
	}
}

/** The whole messages at the beginning of the bytes, each with its length in front. */
export function splitMessages(bytes: Uint8Array): readonly Uint8Array[] {
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
	const messages: Uint8Array[] = [];
	for (let at = 0; at + 4 <= bytes.length; ) {
		const next = at + 4 + view.getUint32(at, true);
		if (next > bytes.length) {
			break;
		}
		messages.push(bytes.subarray(at, next));
		at = next;
	}
	return messages;
}
