import { createKeyedLock } from "../async/keyed-lock.ts";
import type { CacheManager, ImmutableRef, MutableRef } from "../cache/cache.ts";
import { hasCode } from "../errors/errors.ts";
import type { CacheSharing } from "../llb/op.ts";

/** How long a `locked` mount waits between two looks whether its holder is done. */
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
	/** Forget what is there, unless somebody uses it. */
	readonly fresh: boolean;
	readonly signal: AbortSignal;
}

export interface CacheMountHold extends AsyncDisposable {
	readonly ref: MutableRef;
}

export function createCacheMounts(cache: CacheManager): CacheMounts {
	const locks = createKeyedLock();
	const shared = new Map<string, { readonly ref: MutableRef; users: number }>();

	async function take(key: string, request: CacheMountRequest): Promise<MutableRef> {
		for (;;) {
			const found = await locks.run(key, { signal: request.signal }, () => takeFree(key, request));
			if (found !== "locked") {
				return found;
			}
			await waitFor(pollMs, request.signal);
		}
	}

	async function takeFree(key: string, request: CacheMountRequest): Promise<MutableRef | "locked"> {
		const index = indexOf(key);
		let inUse = false;
		for (const id of cache.search(index)) {
			try {
				const ref = await cache.getMutable(id);
				if (ref !== undefined && !request.fresh) {
					return ref;
				}
				await ref?.discard();
			} catch (error) {
				if (!hasCode(error, "failed-precondition")) {
					throw error;
				}
				inUse = true;
			}
		}
		if (inUse && request.sharing === "locked") {
			return "locked";
		}
		const ref = await cache.createMutable({
			...(request.base === undefined ? {} : { parent: request.base }),
			retain: true,
			recordType: "exec.cachemount",
			description: request.description,
			signal: request.signal,
		});
		ref.setIndex(index);
		return ref;
	}

	async function acquireShared(key: string, request: CacheMountRequest): Promise<CacheMountHold> {
		const entry = await locks.run(`shared ${key}`, { signal: request.signal }, async () => {
			const known = shared.get(key);
			if (known !== undefined) {
				known.users += 1;
				return known;
			}
			const made = { ref: await take(key, request), users: 1 };
			shared.set(key, made);
			return made;
		});
		return holdOf(entry.ref, async () => {
			entry.users -= 1;
			if (entry.users === 0) {
				shared.delete(key);
				await entry.ref.release();
			}
		});
	}

	return {
		async acquire(request) {
			const key = request.base === undefined ? request.id : `${request.id}:${request.base.id}`;
			if (request.sharing === "shared") {
				return await acquireShared(key, request);
			}
			const ref = await take(key, request);
			return holdOf(ref, () => ref.release());
		},
	};
}

function indexOf(key: string): string {
	return `cache-dir:${key}`;
}

function holdOf(ref: MutableRef, release: () => Promise<void>): CacheMountHold {
	let released = false;
	return {
		ref,
		async [Symbol.asyncDispose]() {
			if (!released) {
				released = true;
				await release();
			}
		},
	};
}

function waitFor(ms: number, signal: AbortSignal): Promise<void> {
	return new Promise((resolve, reject) => {
		const stop = (): void => {
			clearTimeout(timer);
			reject(signal.reason);
		};
		const timer = setTimeout(() => {
			signal.removeEventListener("abort", stop);
			resolve();
		}, ms);
		signal.addEventListener("abort", stop, { once: true });
	});
}
