import { createKeyedLock } from "../async/keyed-lock.ts";
import type { CacheManager, ImmutableRef, MutableRef, RefId } from "../cache/cache.ts";
import { hasCode } from "../errors/errors.ts";
import type { CacheSharing } from "../llb/op.ts";

/** How long a `locked` mount waits between two looks whether its holder is done, if nobody says so: holders may be elsewhere. */
const pollMs = 100;

/**
 * The directories of `RUN --mount=type=cache`: kept mutable records found by id. A `shared` one has one handle for all that use
 * it at the same time; a `private` one is taken by one user, others get another or a new one; a `locked` one is waited for.
 */
export interface CacheMounts {
	acquire(request: CacheMountRequest): Promise<CacheMountHold>;
}

export interface CacheMountRequest {
	readonly id: string;
	/** First content; mounts of one id on different first contents are different. */
	readonly base: ImmutableRef | undefined;
	readonly sharing: CacheSharing;
	/** Shown by `du`. */
	readonly description: string;
	/**
	 * Set for a step that must not use caches: what is there is forgotten, once for each such object, which stands for a build. Whoever
	 * uses it at the time keeps it to the end; the steps of the build share the new one.
	 */
	readonly freshFor?: object;
	/** Gives a new one its first files. False: it has failed, and is thrown away for an empty one. */
	readonly fill?: (ref: MutableRef) => Promise<boolean>;
	readonly signal: AbortSignal;
}

export interface CacheMountHold extends AsyncDisposable {
	readonly ref: MutableRef;
}

export function cacheMountKey({ id, base }: Pick<CacheMountRequest, "id" | "base">): string {
	return base === undefined ? id : `${id}:${base.id}`;
}

export function createCacheMounts(cache: CacheManager): CacheMounts {
	return new SharedCacheMounts(cache);
}

/** A directory that is in use. */
interface Used {
	readonly ref: MutableRef;
	users: number;
	/** Nobody shall find it any more; it goes with its last user. */
	forgotten: boolean;
}

class SharedCacheMounts implements CacheMounts {
	readonly #cache: CacheManager;
	readonly #locks = createKeyedLock();
	readonly #used = new Map<string, Set<Used>>();
	readonly #shared = new Map<string, Used>();
	/** Called when something of the key was given back. */
	readonly #waiting = new Map<string, Set<() => void>>();
	readonly #freshened = new WeakMap<object, Set<string>>();

	constructor(cache: CacheManager) {
		this.#cache = cache;
	}

	async acquire(request: CacheMountRequest): Promise<CacheMountHold> {
		const key = cacheMountKey(request);
		const { signal, freshFor } = request;
		if (freshFor !== undefined && this.#isFirst(freshFor, key)) {
			await this.#locks.run(key, { signal }, () => this.#forget(key));
		}
		for (;;) {
			const used = await this.#locks.run(key, { signal }, () => this.#take(key, request));
			if (used !== undefined) {
				return this.#holdOf(key, used);
			}
			await this.#whenFreed(key, signal);
		}
	}

	#isFirst(build: object, key: string): boolean {
		const keys = this.#freshened.get(build) ?? new Set();
		this.#freshened.set(build, keys);
		return !keys.has(key) && keys.add(key) !== undefined;
	}

	/** Undefined if it has to be waited for. */
	async #take(key: string, request: CacheMountRequest): Promise<Used | undefined> {
		if (request.sharing === "shared") {
			const known = this.#shared.get(key);
			if (known !== undefined) {
				known.users += 1;
				return known;
			}
		}
		const ref = await this.#takeRef(key, request);
		if (ref === undefined) {
			return undefined;
		}
		const used: Used = { ref, users: 1, forgotten: false };
		const all = this.#used.get(key) ?? new Set();
		this.#used.set(key, all.add(used));
		if (request.sharing === "shared") {
			this.#shared.set(key, used);
		}
		return used;
	}

	async #takeRef(key: string, request: CacheMountRequest): Promise<MutableRef | undefined> {
		const forgotten = new Set(
			[...(this.#used.get(key) ?? [])].filter((used) => used.forgotten).map((used) => used.ref.id),
		);
		let isLocked = false;
		for (const id of this.#cache.search(indexOf(key)).filter((each) => !forgotten.has(each))) {
			try {
				const ref = await this.#cache.getMutable(id);
				if (ref !== undefined) {
					return ref;
				}
			} catch (error) {
				if (!hasCode(error, "failed-precondition")) {
					throw error;
				}
				isLocked = true;
			}
		}
		if (isLocked && request.sharing === "locked") {
			return undefined;
		}
		const ref = await this.#create(request);
		ref.setIndex(indexOf(key));
		return ref;
	}

	async #create(request: CacheMountRequest): Promise<MutableRef> {
		const ref = await this.#cache.createMutable({
			...(request.base === undefined ? {} : { parent: request.base }),
			retain: true,
			recordType: "exec.cachemount",
			description: request.description,
			signal: request.signal,
		});
		if (request.fill === undefined) {
			return ref;
		}
		let isFilled = false;
		try {
			isFilled = await request.fill(ref);
		} finally {
			if (!isFilled) {
				await ref.discard();
			}
		}
		if (isFilled) {
			return ref;
		}
		const { fill: _failed, ...empty } = request;
		return await this.#create(empty);
	}

	async #forget(key: string): Promise<void> {
		for (const used of this.#used.get(key) ?? []) {
			used.forgotten = true;
		}
		this.#shared.delete(key);
		for (const id of this.#cache.search(indexOf(key))) {
			try {
				const ref = await this.#cache.getMutable(id);
				await ref?.discard();
			} catch (error) {
				if (!hasCode(error, "failed-precondition")) {
					throw error;
				}
			}
		}
	}

	#holdOf(key: string, used: Used): CacheMountHold {
		let released = false;
		return {
			ref: used.ref,
			[Symbol.asyncDispose]: async () => {
				if (!released) {
					released = true;
					await this.#release(key, used);
				}
			},
		};
	}

	async #release(key: string, used: Used): Promise<void> {
		used.users -= 1;
		if (used.users > 0) {
			return;
		}
		const all = this.#used.get(key);
		all?.delete(used);
		if (all?.size === 0) {
			this.#used.delete(key);
		}
		if (this.#shared.get(key) === used) {
			this.#shared.delete(key);
		}
		await (used.forgotten ? used.ref.discard() : used.ref.release());
		for (const wake of this.#waiting.get(key) ?? []) {
			wake();
		}
	}

	#whenFreed(key: string, signal: AbortSignal): Promise<void> {
		return new Promise((resolve, reject) => {
			const waiting = this.#waiting.get(key) ?? new Set();
			this.#waiting.set(key, waiting);
			const leave = (): void => {
				clearTimeout(timer);
				signal.removeEventListener("abort", stop);
				waiting.delete(wake);
				if (waiting.size === 0 && this.#waiting.get(key) === waiting) {
					this.#waiting.delete(key);
				}
			};
			const wake = (): void => {
				leave();
				resolve();
			};
			const stop = (): void => {
				leave();
				reject(signal.reason);
			};
			const timer = setTimeout(wake, pollMs);
			waiting.add(wake);
			signal.addEventListener("abort", stop, { once: true });
			if (signal.aborted) {
				stop();
			}
		});
	}
}

/** The kept directories of a key, newest first. */
export function findCacheMounts(cache: Pick<CacheManager, "search">, key: string): readonly RefId[] {
	return cache.search(indexOf(key));
}

function indexOf(key: string): string {
	return `cache-dir:${key}`;
}
