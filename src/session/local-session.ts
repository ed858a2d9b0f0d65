import { createThreadPool, type ThreadPool } from "../async/pool.ts";
import type { ContentReader } from "../content/content.ts";
import { canceled, SlipwayError, wrap } from "../errors/errors.ts";
import type {
	BlobWriter,
	RegistryToken,
	Session,
	SessionAuth,
	SessionOutput,
	SessionSecrets,
	SessionSsh,
	TokenRequest,
} from "./session.ts";
import { syncDirectory } from "./sync-directory.ts";

/** What a client lends: to a builder in this process (`createLocalSession`) or to one elsewhere (`serveSession`). */
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
	/** Gets tokens for a builder elsewhere, so that the logins stay here. A builder in this process asks `auth`. */
	readonly tokenAuthority?: TokenAuthority;
	/** By the id that `oci.store` names. */
	readonly contentStores?: Readonly<Record<string, ContentReader>>;
	/** By the id that a cache export names: `local:<directory>`. */
	readonly contentWriters?: Readonly<Record<string, BlobWriter>>;
	/** By the index of the exporter. */
	readonly outputs?: readonly (SessionOutput | undefined)[];
	/** Threads for big directories. Default: one of its own, started when it is needed. */
	readonly pool?: ThreadPool;
}

export interface TokenAuthority {
	/** 32 bytes that stand for the login of the host, and for no other; `salt` is the builder's. */
	publicKey(host: string, salt: Uint8Array, options: { readonly signal: AbortSignal }): Promise<Uint8Array>;
	/** Signature and payload in one. */
	sign(
		host: string,
		salt: Uint8Array,
		payload: Uint8Array,
		options: { readonly signal: AbortSignal },
	): Promise<Uint8Array>;
	fetch(request: TokenRequest, options: { readonly signal: AbortSignal }): Promise<RegistryToken>;
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
