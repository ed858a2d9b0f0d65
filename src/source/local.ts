import type { CacheManager, ImmutableRef, MutableRef } from "../cache/cache.ts";
import { type DigestedStat, digestHeader } from "../cache/content-digest-header.ts";
import { hasCode, SlipwayError, toError } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";
import { type ProgressSink, progressTime, type StatusRecord } from "../progress/progress.ts";
import type { Session, SyncSummary } from "../session/session.ts";
import { type LocalAttributes, localCacheKey, parseLocalAttributes } from "./local-attributes.ts";
import type { Source, SourceInstance, SourceOptions, SourceRequest } from "./source.ts";
import { syncStateFile } from "./sync-state-file.ts";

export interface LocalSourceOptions {
	readonly cache: Pick<CacheManager, "createMutable" | "getMutable" | "search">;
}

/**
 * `local://name`: a directory of the client, synced into a copy that is kept for the client's next build. Copies are found by
 * name, hint and the client's shared key; two builds at the same time each have one.
 */
export function createLocalSource({ cache }: LocalSourceOptions): Source {
	return {
		schemes: ["local"],
		open: (request) => new LocalInstance(cache, request),
	};
}

/** What the record of a client's directory is found by. */
export function localIndex(of: {
	readonly name: string;
	readonly sharedKeyHint: string;
	readonly sharedKey: string;
}): string {
	return `local.sharedKey:${of.name}:${of.sharedKeyHint}:${of.sharedKey}`;
}

class LocalInstance implements SourceInstance {
	readonly #cache: LocalSourceOptions["cache"];
	readonly #attributes: LocalAttributes;
	readonly #sessions: () => readonly Session[];

	constructor(cache: LocalSourceOptions["cache"], request: SourceRequest) {
		this.#cache = cache;
		this.#attributes = parseLocalAttributes(request);
		this.#sessions = request.sessions;
	}

	async cacheKey(): Promise<{ readonly key: string; readonly last: boolean }> {
		const sessionId = this.#attributes.sessionId ?? this.#sessions()[0]?.id;
		if (sessionId === undefined) {
			throw noSession();
		}
		return { key: localCacheKey(this.#attributes, sessionId), last: true };
	}

	async snapshot(options: SourceOptions): Promise<ImmutableRef> {
		const all = this.#sessions();
		const named = all.filter((session) => session.id === this.#attributes.sessionId);
		let failure: SlipwayError | undefined;
		for (const session of [...named, ...all.filter((each) => !named.includes(each))]) {
			try {
				return await this.#sync(session, options);
			} catch (thrown) {
				const error = toError(thrown);
				// A client that lends no such directory; another one of the job may.
				if (error.code !== "not-found" || options.signal.aborted) {
					throw error;
				}
				failure ??= error;
			}
		}
		throw failure ?? noSession();
	}

	async #sync(session: Session, options: SourceOptions): Promise<ImmutableRef> {
		const { name, sharedKeyHint } = this.#attributes;
		const index = localIndex({ name, sharedKeyHint, sharedKey: session.sharedKey });
		await using progress = reportTransfer(name, options);
		const kept = await this.#keptRef(index);
		if (kept !== undefined && (await this.#fill(kept, session, progress, options.signal)) === "refreshed") {
			return kept.freeze();
		}
		await kept?.discard();
		const ref = await this.#cache.createMutable({
			description: `local source for ${name}`,
			recordType: "source.local",
			retain: true,
			signal: options.signal,
		});
		ref.setIndex(index);
		await this.#fill(ref, session, progress, options.signal);
		return ref.freeze();
	}

	/** The newest copy that no other build has just now. */
	async #keptRef(index: string): Promise<MutableRef | undefined> {
		for (const id of this.#cache.search(index)) {
			try {
				const ref = await this.#cache.getMutable(id);
				if (ref !== undefined) {
					return ref;
				}
			} catch (thrown) {
				if (!hasCode(thrown, "failed-precondition")) {
					throw thrown;
				}
			}
		}
		return undefined;
	}

	/** `unusable`: the copy cannot be relied on, and a new one must be made. The ref is given back on failure. */
	async #fill(
		ref: MutableRef,
		session: Session,
		progress: Transfer,
		signal: AbortSignal,
	): Promise<"refreshed" | "unusable"> {
		const file = syncStateFile(ref.directory());
		const previous = file.take();
		let summary: SyncSummary;
		try {
			summary = await this.#request(ref, session, progress, { signal, previous });
		} catch (thrown) {
			if (signal.aborted) {
				// Kept as it is: without a state, the next build looks at what there is, and copies the rest.
				await ref.release();
				throw thrown;
			}
			if (previous === undefined) {
				await ref.discard();
				throw thrown;
			}
			// What was remembered may be wrong.
			return "unusable";
		}
		// Digests are kept by text; a name that is none cannot be forgotten by name.
		if (previous !== undefined && summary.changed.some((path) => path.includes("\ufffd"))) {
			return "unusable";
		}
		ref.digests.omitRoot();
		if (summary.changed.length > 0) {
			ref.digests.invalidate(summary.changed.map((path) => `/${path}`));
		}
		for (const [path, digest] of summary.digests ?? []) {
			// As above: what is no text has no name here.
			if (!path.includes("\ufffd")) {
				ref.digests.set(`/${path}`, { kind: "file", digest: `sha256:${digest}` as Digest });
			}
		}
		file.put(summary.state);
		progress.bytes(summary.bytes);
		return "refreshed";
	}

	#request(
		ref: MutableRef,
		session: Session,
		progress: Transfer,
		options: { readonly signal: AbortSignal; readonly previous: Uint8Array | undefined },
	): Promise<SyncSummary> {
		const { name, includePatterns, excludePatterns, followPaths, differ } = this.#attributes;
		return session.files.sync(
			{
				name,
				includePatterns: includePatterns ?? [],
				excludePatterns: excludePatterns ?? [],
				followPaths: followPaths ?? [],
				target: ref.directory(),
				differ,
				...(options.previous === undefined ? {} : { previous: options.previous }),
			},
			{
				signal: options.signal,
				onProgress: (bytes) => progress.bytes(bytes),
				digestHeader: (file) => digestHeader({ ...plainFile, ...file }),
			},
		);
	}
}

const plainFile: Pick<DigestedStat, "kind" | "target" | "deviceMajor" | "deviceMinor" | "xattrs"> = {
	kind: "file",
	target: "",
	deviceMajor: 0,
	deviceMinor: 0,
	xattrs: new Map(),
};

function noSession(): SlipwayError {
	return new SlipwayError("failed-precondition", "could not access local files without session");
}

interface Transfer extends AsyncDisposable {
	bytes(total: number): void;
}

const reportEveryMs = 100;

/** The status line `transferring <name>:`, completed when disposed. */
function reportTransfer(
	name: string,
	{ progress, vertex }: { readonly progress: ProgressSink; readonly vertex: StatusRecord["vertex"] },
): Transfer {
	const started = progressTime();
	let current = 0;
	let written = 0;
	const write = (completed: number | undefined): void => {
		const timestamp = progressTime();
		written = timestamp;
		progress.write({
			kind: "status",
			status: {
				vertex,
				id: `transferring ${name}:`,
				name: "transferring",
				current,
				total: 0,
				timestamp,
				started,
				...(completed === undefined ? {} : { completed }),
			},
		});
	};
	write(undefined);
	return {
		bytes(total) {
			current = total;
			if (progressTime() - written >= reportEveryMs) {
				write(undefined);
			}
		},
		async [Symbol.asyncDispose]() {
			write(progressTime());
		},
	};
}
