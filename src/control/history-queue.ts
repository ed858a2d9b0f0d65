import { setImmediate as nextTurn } from "node:timers/promises";
import {
	type BuildHistoryEvent,
	BuildHistoryEventType,
	type BuildHistoryRecord,
	type BuildHistoryRequest,
	type Descriptor,
	emptyBuildHistoryRecord,
} from "../api/generated/control.ts";
import { Status } from "../api/generated/google/rpc/status.ts";
import { statusOf } from "../api/status.ts";
import { timestampOf } from "../api/timestamps.ts";
import { openLocalContentStore } from "../content/local.ts";
import type { Database } from "../database/database.ts";
import { canceled, SlipwayError, toError } from "../errors/errors.ts";
import { type Digest, isDigest } from "../oci/digest.ts";
import { progressTime } from "../progress/progress.ts";
import {
	type BuildEnd,
	type History,
	type HistoryOptions,
	historyDefaults,
	historyMediaTypes,
} from "./history.ts";
import { filterRecords } from "./history-filter.ts";
import { createHistoryStore, type HistoryStore } from "./history-store.ts";
import { splitMessages } from "./service-log.ts";

export interface OpenHistoryOptions extends HistoryOptions {
	readonly database: Database;
	/** Directory of the history's blobs. */
	readonly root: string;
	/** Told what is lost. */
	readonly warn: (message: string) => void;
}

const collectEveryMs = 120_000;
/** BuildKit's: clients send the last of their spans when they end. */
const traceWaitMs = 3000;
/** A trace takes milliseconds to write down, which builds that run would wait for, and clients of those that have just ended. */
const tracePatienceMs = 10_000;
const traceAgainMs = 60;
/** A listener that is so far behind does not listen. */
const maxWaitingEvents = 4096;

export async function openHistory(options: OpenHistoryOptions): Promise<History> {
	const signal = new AbortController().signal;
	const blobs = await openLocalContentStore({ root: options.root, signal });
	const store = createHistoryStore(options.database, blobs);
	await store.sweep();
	return new Queue({ ...historyDefaults, ...options, store, blobs });
}

interface QueueOptions extends Omit<OpenHistoryOptions, keyof HistoryOptions>, Required<HistoryOptions> {
	readonly store: HistoryStore;
	readonly blobs: History["blobs"];
}

interface Listener {
	readonly ref: string;
	readonly events: BuildHistoryEvent[];
	wake: () => void;
}

class Queue implements History {
	readonly blobs: History["blobs"];
	readonly #options: QueueOptions;
	readonly #store: HistoryStore;
	readonly #active = new Map<string, BuildHistoryRecord>();
	readonly #listeners = new Set<Listener>();
	/** Deleted while somebody listened to it. */
	readonly #deleted = new Set<string>();
	/** Builds that have ended and are being written down. */
	readonly #recording = new Map<string, Promise<void>>();
	#lastEndMs = 0;
	/** What saves the trace of a build that has ended. */
	readonly #traces = new Map<string, () => Promise<void>>();
	readonly #timer: NodeJS.Timeout;
	#draining = false;

	constructor(options: QueueOptions) {
		this.#options = options;
		this.#store = options.store;
		this.blobs = options.blobs;
		this.#timer = setInterval(() => {
			this.collect().catch((error: unknown) => {
				options.warn(`old builds stay in the history: ${toError(error).message}`);
			});
		}, collectEveryMs).unref();
	}

	start(record: BuildHistoryRecord): { complete(end: BuildEnd): Promise<void> } {
		this.#active.set(record.Ref, record);
		this.#tell({ type: BuildHistoryEventType.STARTED, record });
		return {
			complete: (end) => {
				// Answers of this turn leave first.
				const recording = nextTurn()
					.then(() => this.#record(record, end))
					.finally(() => this.#recording.delete(record.Ref));
				this.#recording.set(record.Ref, recording);
				return recording;
			},
		};
	}

	async update(ref: string, { pinned }: { readonly pinned: boolean }): Promise<void> {
		const record = this.#store.find(ref);
		if (record === undefined) {
			throw new SlipwayError("unknown", `failed to retrieve ref ${ref}: file does not exist`);
		}
		const changed = { ...record, pinned, Generation: record.Generation + 1 };
		this.#store.put(changed, []);
		this.#tell({ type: BuildHistoryEventType.COMPLETE, record: changed });
	}

	async delete(ref: string): Promise<void> {
		if ([...this.#listeners].some((listener) => listener.ref === ref)) {
			this.#deleted.add(ref);
			return;
		}
		if (this.#store.find(ref) === undefined) {
			throw new SlipwayError("unknown", `lease "ref_${ref}": not found`);
		}
		this.#deleted.delete(ref);
		this.#tell({
			type: BuildHistoryEventType.DELETED,
			record: { ...emptyBuildHistoryRecord(), Ref: ref },
		});
		for (const digest of this.#store.delete(ref)) {
			await this.blobs.delete(digest);
		}
	}

	keepTrace(ref: string, take: () => string): void {
		let saving: Promise<void> | undefined;
		const save = (): Promise<void> => {
			clearTimeout(timer);
			saving ??= this.#saveTrace(ref, take).finally(() => this.#traces.delete(ref));
			return saving;
		};
		const due = performance.now() + traceWaitMs;
		const saveInPeace = (): void => {
			const now = performance.now();
			const isBusy = this.#active.size > 0 || now < this.#lastEndMs + traceAgainMs;
			if (isBusy && now < due + tracePatienceMs) {
				timer = setTimeout(saveInPeace, traceAgainMs).unref();
			} else {
				void save();
			}
		};
		let timer = setTimeout(saveInPeace, traceWaitMs).unref();
		this.#traces.set(ref, save);
	}

	async finalize(ref: string): Promise<void> {
		await this.#recording.get(ref);
		await this.#traces.get(ref)?.();
	}

	find(ref: string): BuildHistoryRecord | undefined {
		return this.#deleted.has(ref) ? undefined : this.#store.find(ref);
	}

	async *readLog(
		{ logs }: BuildHistoryRecord,
		{ signal }: { readonly signal: AbortSignal },
	): AsyncGenerator<Uint8Array, void> {
		const digest = logs?.digest ?? "";
		if (!isDigest(digest)) {
			return;
		}
		let rest: Uint8Array = new Uint8Array(0);
		for await (const chunk of this.blobs.read(digest, { signal })) {
			const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
			let used = 0;
			for (const message of splitMessages(bytes)) {
				used += message.length;
				yield message.subarray(4);
			}
			rest = bytes.slice(used);
		}
	}

	async *listen(
		request: BuildHistoryRequest,
		{ signal }: { readonly signal: AbortSignal },
	): AsyncGenerator<BuildHistoryEvent, void> {
		const { Ref: ref } = request;
		if (ref !== "" && this.#deleted.has(ref)) {
			throw new SlipwayError("unknown", `ref ${ref} is deleted: file does not exist`);
		}
		const listener: Listener = { ref, events: [], wake: () => {} };
		const wake = (): void => listener.wake();
		this.#listeners.add(listener);
		signal.addEventListener("abort", wake);
		try {
			await Promise.all(this.#recording.values());
			// What came meanwhile is known.
			listener.events.length = 0;
			yield* this.#known(request);
			if (request.EarlyExit) {
				return;
			}
			for (;;) {
				for (const event of listener.events.splice(0)) {
					if (ref === "" || event.record?.Ref === ref) {
						yield event;
					}
				}
				if (signal.aborted) {
					throw canceled(signal.reason);
				}
				if (!this.#listeners.has(listener)) {
					return;
				}
				if (listener.events.length === 0) {
					await new Promise<void>((resolve) => {
						listener.wake = resolve;
					});
				}
			}
		} finally {
			signal.removeEventListener("abort", wake);
			this.#listeners.delete(listener);
			if (this.#deleted.has(ref) && this.#store.find(ref) !== undefined) {
				await this.delete(ref);
			}
		}
	}

	async collect(): Promise<void> {
		const completedBefore = Date.now() - this.#options.maxAgeMs;
		for (const ref of this.#store.expired({ maxEntries: this.#options.maxEntries, completedBefore })) {
			await this.delete(ref);
		}
	}

	drain(): void {
		this.#draining = true;
		this.#endListeners();
	}

	async [Symbol.asyncDispose](): Promise<void> {
		clearInterval(this.#timer);
		await Promise.all(this.#recording.values());
		this.#active.clear();
		this.drain();
		await Promise.all([...this.#traces.values()].map((save) => save()));
	}

	/** Never rejects. */
	async #record(record: BuildHistoryRecord, end: BuildEnd): Promise<void> {
		let completed = record;
		try {
			const made = await this.#completed(record, end);
			completed = made.record;
			this.#store.put(completed, made.blobs);
		} catch (error) {
			this.#options.warn(`build ${record.Ref} is not recorded: ${toError(error).message}`);
		}
		this.#active.delete(record.Ref);
		this.#lastEndMs = performance.now();
		this.#tell({ type: BuildHistoryEventType.COMPLETE, record: completed });
		this.#endListeners();
	}

	*#known(request: BuildHistoryRequest): Generator<BuildHistoryEvent, void> {
		const wanted = ({ Ref: ref }: BuildHistoryRecord): boolean =>
			(request.Ref === "" || request.Ref === ref) && !this.#deleted.has(ref);
		for (const record of [...this.#active.values()].filter(wanted)) {
			yield { type: BuildHistoryEventType.STARTED, record };
		}
		if (request.ActiveOnly) {
			return;
		}
		const one = request.Ref === "" ? undefined : this.#store.find(request.Ref);
		const records = request.Ref === "" ? this.#store.list() : one === undefined ? [] : [one];
		const found = filterRecords(records.filter(wanted), {
			filters: request.Filter,
			limit: request.Limit,
		});
		for (const record of found) {
			yield { type: BuildHistoryEventType.COMPLETE, record };
		}
	}

	#tell(event: BuildHistoryEvent): void {
		for (const listener of this.#listeners) {
			listener.events.push(event);
			if (listener.events.length > maxWaitingEvents) {
				this.#listeners.delete(listener);
			}
			listener.wake();
		}
	}

	#endListeners(): void {
		if (this.#draining && this.#active.size === 0) {
			const listeners = [...this.#listeners];
			this.#listeners.clear();
			for (const listener of listeners) {
				listener.wake();
			}
		}
	}

	/** The record of a build that ended; what of its blobs can't be kept is left out. */
	async #completed(
		record: BuildHistoryRecord,
		end: BuildEnd,
	): Promise<{ readonly record: BuildHistoryRecord; readonly blobs: readonly string[] }> {
		const attempt = async <T>(what: string, work: () => Promise<T>): Promise<T | undefined> => {
			try {
				return await work();
			} catch (error) {
				this.#options.warn(`${what} of build ${record.Ref} is not kept: ${toError(error).message}`);
				return undefined;
			}
		};
		const signal = new AbortController().signal;
		const log = await attempt("the log", () => end.log.save(signal));
		const { error } = end;
		const status = error && statusOf(error);
		const kept = status && (await attempt("the error", () => this.#write(Status.encode(status).finish())));
		const blobs = [...end.documents.keys()];
		const areKept = await attempt("an image", async () => {
			await Promise.all([...end.documents.values()].map((document) => this.#write(document)));
			return true;
		});
		const results = new Map(
			[...end.results].filter(([, { digest }]) => areKept && end.documents.has(digest as Digest)),
		);
		const summary = end.log.summary();
		return {
			blobs,
			record: {
				...record,
				CompletedAt: timestampOf(progressTime()),
				error: status && { ...status, details: [] },
				externalError: kept && descriptorMessage(historyMediaTypes.error, kept),
				logs: log && descriptorMessage(historyMediaTypes.log, log),
				ExporterResponse: new Map(end.metadata),
				Result:
					results.size === 0
						? undefined
						: { ResultDeprecated: [...results.values()][0], Attestations: [], Results: results },
				numCachedSteps: summary.cachedSteps,
				numTotalSteps: summary.steps,
				numCompletedSteps: summary.completedSteps,
				numWarnings: summary.warnings,
			},
		};
	}

	/** Never rejects. */
	async #saveTrace(ref: string, take: () => string): Promise<void> {
		try {
			const text = take();
			const kept = text === "" ? undefined : await this.#write(Buffer.from(text));
			const record = this.#store.find(ref);
			if (kept === undefined || record === undefined) {
				return;
			}
			const trace = descriptorMessage(historyMediaTypes.trace, kept);
			const changed = { ...record, trace, Generation: record.Generation + 1 };
			this.#store.put(changed, []);
			this.#tell({ type: BuildHistoryEventType.COMPLETE, record: changed });
		} catch (error) {
			this.#options.warn(`the trace of build ${ref} is not kept: ${toError(error).message}`);
		}
	}

	#write(bytes: Uint8Array): Promise<{ readonly digest: string; readonly size: number }> {
		return this.blobs.write(chunksOf(bytes), { signal: new AbortController().signal });
	}
}

async function* chunksOf(bytes: Uint8Array): AsyncGenerator<Uint8Array, void> {
	yield bytes;
}

function descriptorMessage(
	mediaType: string,
	{ digest, size }: { readonly digest: string; readonly size: number },
): Descriptor {
	return { mediaType, digest, size, annotations: new Map() };
}
