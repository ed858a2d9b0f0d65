import { createThreadPool, type ThreadPool } from "../async/pool.ts";
import type { ContentReader } from "../content/content.ts";
import { canceled, SlipwayError, wrap } from "../errors/errors.ts";
import type { BlobWriter, Session, SessionAuth, SessionOutput, SessionSecrets, SessionSsh } from "./session.ts";
import { syncDirectory } from "./sync-directory.ts";

export interface LocalSessionOptions {
	readonly id: string;
	readonly sharedKey: string;
	/** By the names that local sources have: `context`, `dockerfile`. */
	readonly directories: Readonly<Record<string, LocalDirectory>>;
	/** Default: every registry is asked without a login. */
	readonly auth?: SessionAuth;
	/** Default: there is no secret. */
	readonly secrets?: SessionSecrets;
	/** Default: there is no agent. */
	readonly ssh?: SessionSsh;
	/** By the id that `oci.store` names. */
	readonly contentStores?: Readonly<Record<string, ContentReader>>;
	/** By the id that a cache export names: `local:<directory>`. */
	readonly contentWriters?: Readonly<Record<string, BlobWriter>>;
	/** By the index of the exporter. */
	readonly outputs?: readonly (SessionOutput | undefined)[];
	/** Threads for big directories. Default: one of its own, started when it is needed. */
	readonly pool?: ThreadPool;
}

export interface LocalDirectory {
	readonly path: string;
}

/** A session whose client is in this process. Disposing it is what a client that goes away is to a daemon. */
export interface LocalSession extends Session, AsyncDisposable {}

export function createLocalSession(options: LocalSessionOptions): LocalSession {
	const closed = new AbortController();
	let own: ThreadPool | undefined;
	const pool = (): ThreadPool => options.pool ?? (own ??= createThreadPool({ size: 1 }));
	return {
		id: options.id,
		sharedKey: options.sharedKey,
		closed: closed.signal,
		files: {
			async sync({ name, ...request }, { signal, onProgress }) {
				const directory = Object.hasOwn(options.directories, name) ? options.directories[name] : undefined;
				if (directory === undefined) {
					throw new SlipwayError("not-found", `no access allowed to dir ${JSON.stringify(name)}`);
				}
				try {
					return await syncDirectory(directory.path, request, {
						signal: AbortSignal.any([signal, closed.signal]),
						pool: pool(),
						...(onProgress === undefined ? {} : { onProgress }),
					});
				} catch (thrown) {
					throw wrap(thrown, `failed to load ${name}`);
				}
			},
		},
		auth: options.auth ?? { credentials: async () => undefined },
		secrets: options.secrets ?? { secret: async () => undefined },
		ssh: options.ssh ?? { agent: async () => undefined },
		contentStore: (id) =>
			options.contentStores !== undefined && Object.hasOwn(options.contentStores, id)
				? options.contentStores[id]
				: undefined,
		contentWriter: (id) =>
			options.contentWriters !== undefined && Object.hasOwn(options.contentWriters, id)
				? options.contentWriters[id]
				: undefined,
		output: (index) => options.outputs?.[index],
		async [Symbol.asyncDispose]() {
			closed.abort(canceled());
			await own?.[Symbol.asyncDispose]();
		},
	};
}
