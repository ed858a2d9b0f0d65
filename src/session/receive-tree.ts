import type { MessageStream } from "../api/grpc.ts";
import type { Packet } from "../api/services/packet.ts";
import type { ThreadPool } from "../async/pool.ts";
import { SlipwayError, toError } from "../errors/errors.ts";
import { textOf } from "../sys/byte-names.ts";
import { observeTree } from "./observe-tree.ts";
import type { ReceivedPacket } from "./packet-pieces.ts";
import type {
	HashedFile,
	ReceiveBatch,
	ReceivedDigests,
	ReceivePlace,
	WriteOperation,
} from "./receive.job.ts";
import { type PlannedFile, ReceivePlan, receivedKey } from "./receive-plan.ts";
import { writeReceived } from "./receive-write.ts";
import type { SyncOptions, SyncSummary } from "./session.ts";
import { decodeTreeState, encodeTreeState, type TreeState } from "./tree-state.ts";

export interface ReceiveTarget {
	/** An existing directory. */
	readonly target: string;
	/** Write everything again, whatever the target holds. */
	readonly force: boolean;
	/** Remove what the sender does not have. Without, the target is not looked at. */
	readonly mirror: boolean;
	readonly place: ReceivePlace;
	/** `state` of the last transfer into the target. */
	readonly previous?: Uint8Array;
	readonly digestHeader?: SyncOptions["digestHeader"];
}

export interface ReceiveOptions {
	readonly signal: AbortSignal;
	readonly pool: ThreadPool;
	/** Called with the bytes that arrived so far. */
	readonly onProgress?: (bytes: number) => void;
	/** A sender that says nothing for this long has stalled. Default: 10 minutes. */
	readonly stallMs?: number;
	/** Makes the stream fail with the error; called for a sender that has stalled. */
	readonly cancel: (error: SlipwayError) => void;
}

/**
 * The receiving side of fsutil's transfer (receive.go): makes the target what the sender announces, asking only for contents that
 * differ. An error of either side is told to the other. Nothing is written outside of the target, whatever arrives.
 * The stream must fail when the signal fires.
 */
export async function receiveTree(
	stream: MessageStream<ReceivedPacket, Packet>,
	target: ReceiveTarget,
	options: ReceiveOptions,
): Promise<SyncSummary> {
	const receiver = new Receiver(stream, target, options);
	try {
		return await receiver.run();
	} catch (thrown) {
		const error = options.signal.aborted ? toError(options.signal.reason) : toError(thrown);
		await receiver.abandon(error);
		throw error;
	}
}

/** Bytes of content per batch; one is written while the next is filled. */
const blockBytes = 1 << 20;
/** Enough for a Dockerfile; a large block costs half a millisecond. */
const firstBytes = 16 << 10;
/** A message is 32 KiB of BuildKit's clients, 256 KiB of ours. */
const slackBytes = 320 << 10;
/** Operations per batch, so that a thread is not taken for long. */
const maxOperations = 1000;
/** What this thread writes itself when it is all there is: less than handing it over costs. */
const inlineOperations = 50;
const inlineBytes = 256 << 10;
/** A file may grow while it is read, within reason; a sender without end is stopped. */
const growthBytes = 256 << 20;
const defaultStallMs = 10 * 60_000;
/** Files from this size on are hashed while they arrive: to read them again would take longer than it takes to hash them. */
const hashedBytes = 256 << 10;
let transfers = 0;

interface OpenFile extends PlannedFile {
	received: number;
	started: boolean;
	readonly hashed: HashedFile | undefined;
}

class Receiver {
	readonly #stream: MessageStream<ReceivedPacket, Packet>;
	readonly #target: ReceiveTarget;
	readonly #options: ReceiveOptions;
	readonly #plan: ReceivePlan;
	/** Asked for and not complete, by number. */
	readonly #files = new Map<number, OpenFile>();
	readonly #changed = new Set<string>();
	readonly #transfer: number = transfers++;
	/** Files that are hashed, until their digest comes. */
	readonly #hashed = new Map<number, string>();
	readonly #digests = new Map<string, string>();
	#entries = 0;
	#bytes = 0;
	#announced = false;
	#finished = false;
	#failed: SlipwayError | undefined;

	#operations: WriteOperation[] = [];
	#block: Uint8Array = new Uint8Array(0);
	#filled = 0;
	/** The block that is not being filled. */
	#spare: Uint8Array | undefined;
	#writing: Promise<void> | undefined;

	constructor(stream: MessageStream<ReceivedPacket, Packet>, target: ReceiveTarget, options: ReceiveOptions) {
		this.#stream = stream;
		this.#target = target;
		this.#options = options;
		this.#plan = new ReceivePlan({
			target: target.target,
			previous: previousOf(target, () => options.signal.throwIfAborted()),
			force: target.force,
			emit: (operation) => this.#operations.push(operation),
			changed: (path) => this.#changed.add(textOf(path)),
		});
	}

	async run(): Promise<SyncSummary> {
		using watch = watchStall(this.#options);
		for await (const packet of this.#stream) {
			watch.seen();
			this.#bytes += sizeOf(packet);
			this.#options.onProgress?.(this.#bytes);
			if (this.#take(packet)) {
				return this.#summary();
			}
			if (this.#failed !== undefined) {
				throw this.#failed;
			}
			if (this.#filled >= blockBytes || this.#operations.length >= maxOperations) {
				await watch.pause(this.#flush());
			}
			if (this.#announced && this.#files.size === 0 && !this.#finished) {
				await watch.pause(this.#finish());
			}
		}
		throw new SlipwayError("unavailable", "the transfer of files ended before it was complete");
	}

	/** Waits for the thread that still writes, and tells the sender why. */
	async abandon(error: SlipwayError): Promise<void> {
		await this.#writing?.catch(() => undefined);
		if (this.#target.place.kind === "replace") {
			const { unique } = this.#target.place;
			this.#operations = [...this.#files]
				.filter(([, file]) => file.started)
				.map(([id, { path }]) => ({
					kind: "remove",
					path: `${path.slice(0, path.lastIndexOf("/") + 1)}.tmp.${unique}.${id}`,
				}));
			try {
				writeReceived(this.#batch());
			} catch {
				// The error that led here says more.
			}
		}
		this.#send({ kind: "error", message: error.message });
	}

	/** True: this was the last packet. */
	#take(packet: ReceivedPacket): boolean {
		switch (packet.kind) {
			case "stat":
				if (this.#announced) {
					throw invalid("another file was announced after the last one");
				}
				if (packet.stat === undefined) {
					this.#announced = true;
					this.#plan.end();
					return false;
				}
				this.#ask(this.#plan.add(packet.stat));
				return false;
			case "data":
				this.#content(packet.id, packet.data, packet.more ?? []);
				return false;
			case "finish":
				if (!this.#finished) {
					throw invalid("the transfer was declared complete before it was");
				}
				return true;
			case "error":
				throw new SlipwayError("unknown", `error from sender: ${packet.message}`);
			case "request":
				throw invalid("a file was asked for by the side that sends them");
		}
	}

	#ask(file: PlannedFile | undefined): void {
		const id = this.#entries++;
		if (file !== undefined) {
			const hashed = this.#toHash(file);
			if (hashed !== undefined) {
				this.#hashed.set(id, textOf(file.path));
			}
			this.#files.set(id, { ...file, received: 0, started: false, hashed });
			this.#send({ kind: "request", id });
		}
	}

	#toHash({ size, metadata: { mode, xattrs } }: PlannedFile): HashedFile | undefined {
		const { digestHeader } = this.#target;
		if (digestHeader === undefined || size < hashedBytes || xattrs !== undefined) {
			return undefined;
		}
		const uid = process.geteuid?.() ?? 0;
		const gid = process.getegid?.() ?? 0;
		const file = { mode, uid, gid, size };
		return { header: digestHeader(file), ...file };
	}

	/** Nothing waits for room: what is sent here is small, and not reading meanwhile would stop both sides for ever. */
	#send(packet: Packet): void {
		try {
			this.#stream.send(packet)?.catch(() => undefined);
		} catch {
			// Reading says what became of the stream.
		}
	}

	#content(id: number, data: Uint8Array, more: readonly Uint8Array[]): void {
		const file = this.#files.get(id);
		if (file === undefined) {
			throw invalid(`invalid file request ${id}`);
		}
		if (data.length > 0 || more.length > 0) {
			for (const piece of [data, ...more]) {
				this.#append(id, file, piece);
			}
			return;
		}
		this.#complete(id, file);
		this.#files.delete(id);
		if (file.received !== file.size) {
			this.#plan.distrust(file.row);
		}
	}

	#append(id: number, file: OpenFile, data: Uint8Array): void {
		if (file.received + data.length > file.size + growthBytes) {
			throw new SlipwayError(
				"resource-exhausted",
				`sender gives far more than the ${file.size} bytes that it announced of ${JSON.stringify(textOf(file.path))}`,
			);
		}
		if (this.#filled + data.length > this.#block.length) {
			this.#grow(this.#filled + data.length);
		}
		this.#block.set(data, this.#filled);
		const last = this.#operations.at(-1);
		if (last?.kind === "content" && last.id === id && last.start + last.length === this.#filled) {
			this.#operations[this.#operations.length - 1] = { ...last, length: last.length + data.length };
		} else {
			this.#operations.push(this.#piece(id, file, data.length, undefined));
		}
		this.#filled += data.length;
		file.received += data.length;
		file.started = true;
	}

	#complete(id: number, file: OpenFile): void {
		const last = this.#operations.at(-1);
		if (last?.kind === "content" && last.id === id) {
			this.#operations[this.#operations.length - 1] = { ...last, metadata: file.metadata };
		} else {
			this.#operations.push(this.#piece(id, file, 0, file.metadata));
		}
	}

	#piece(
		id: number,
		file: OpenFile,
		length: number,
		metadata: PlannedFile["metadata"] | undefined,
	): WriteOperation {
		return {
			kind: "content",
			path: file.path,
			id,
			offset: file.received,
			start: this.#filled,
			length,
			first: !file.started,
			metadata,
			...(file.hashed === undefined ? {} : { hashed: file.hashed }),
		};
	}

	/** Shared with the thread, not copied to it. It holds a batch and the message that filled it up. */
	#grow(needed: number): void {
		const size = needed <= firstBytes ? firstBytes : Math.max(blockBytes + slackBytes, needed);
		const block = new Uint8Array(new SharedArrayBuffer(size));
		block.set(this.#block.subarray(0, this.#filled));
		this.#block = block;
	}

	/** Everything is there: links, directories' times, and the word to the sender. */
	async #finish(): Promise<void> {
		this.#finished = true;
		const rest = this.#plan.finish();
		const isAll = this.#writing === undefined && this.#spare === undefined;
		if (
			isAll &&
			this.#operations.length + rest.length <= inlineOperations &&
			this.#filled <= inlineBytes &&
			!this.#operations.some(({ kind }) => kind === "remove")
		) {
			this.#operations.push(...rest);
			writeReceived(this.#batch());
		} else {
			for (let at = 0; at < rest.length; at += maxOperations) {
				this.#operations.push(...rest.slice(at, at + maxOperations));
				await this.#flush();
			}
			await this.#flush();
			await this.#writing;
		}
		this.#send({ kind: "finish" });
	}

	/** Hands the batch to a thread, when the last one is done. */
	async #flush(): Promise<void> {
		await this.#writing;
		if (this.#operations.length === 0) {
			return;
		}
		const batch = this.#batch();
		const writing = this.#options.pool.run<ReceiveBatch, ReceivedDigests>("session/receive", batch, {
			// It ends by itself within a moment, and must not write on after this transfer.
			signal: new AbortController().signal,
			// A file is hashed in one thread.
			...(this.#hashed.size === 0 ? {} : { companion: this }),
		});
		this.#writing = writing.then(
			(digests) => this.#learn(digests),
			(thrown: unknown) => {
				this.#failed ??= toError(thrown);
				throw this.#failed;
			},
		);
		this.#writing.catch(() => undefined);
		const spare = this.#spare ?? new Uint8Array(0);
		this.#spare = this.#block;
		this.#block = spare;
		this.#operations = [];
		this.#filled = 0;
	}

	#learn(digests: ReceivedDigests): void {
		for (const [id, digest] of digests) {
			const path = this.#hashed.get(id);
			if (path !== undefined) {
				this.#hashed.delete(id);
				this.#digests.set(path, digest);
			}
		}
	}

	#batch(): ReceiveBatch {
		return {
			transfer: this.#transfer,
			target: this.#target.target,
			block: this.#block,
			operations: this.#operations,
			place: this.#target.place,
		};
	}

	#summary(): SyncSummary {
		const { previous } = this.#target;
		return {
			bytes: this.#bytes,
			changed: [...this.#changed],
			digests: this.#digests,
			state:
				previous !== undefined && this.#plan.unchanged
					? previous
					: encodeTreeState(this.#plan.next, receivedKey),
		};
	}
}

/** What is remembered, if it is of a transfer; else what is there. */
function previousOf(
	{ target, previous, mirror }: ReceiveTarget,
	throwIfAborted: () => void,
): TreeState | undefined {
	if (!mirror) {
		return undefined;
	}
	const known = previous === undefined ? undefined : decodeTreeState(previous);
	return known?.filterKey === receivedKey ? known : observeTree(target, throwIfAborted);
}

interface StallWatch extends Disposable {
	/** A packet came. */
	seen(): void;
	/** Waits for our own work, which is no stall of the sender. */
	pause(work: Promise<void>): Promise<void>;
}

/** One timer for all packets: it looks now and then whether any came. */
function watchStall({ cancel, stallMs = defaultStallMs }: ReceiveOptions): StallWatch {
	let count = 0;
	let last = 0;
	let busy = false;
	const timer = setInterval(() => {
		if (count === last && !busy) {
			cancel(
				new SlipwayError(
					"deadline-exceeded",
					`sender of files has said nothing for ${stallMs / 1000} seconds`,
				),
			);
		}
		last = count;
	}, stallMs);
	timer.unref();
	return {
		seen() {
			count += 1;
		},
		async pause(work) {
			busy = true;
			try {
				await work;
			} finally {
				busy = false;
				count += 1;
			}
		},
		[Symbol.dispose]() {
			clearInterval(timer);
		},
	};
}

/** Nearly what the packet takes on the wire, which clients show as the size of a transfer. */
function sizeOf(packet: ReceivedPacket): number {
	switch (packet.kind) {
		case "stat":
			return packet.stat === undefined ? 0 : 30 + packet.stat.path.length + packet.stat.linkname.length;
		case "data":
			return (packet.more ?? []).reduce((sum, piece) => sum + piece.length, 8 + packet.data.length);
		case "request":
		case "finish":
		case "error":
			return 4;
	}
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
