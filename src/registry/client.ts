import { createLimit, type Limit } from "../async/limit.ts";
import type { Reference } from "../oci/reference.ts";
import { type Endpoint, endpointsOf } from "./endpoint.ts";
import { createExchange } from "./exchange.ts";
import { createReader, type Server } from "./pull.ts";
import { createPusher } from "./push.ts";
import {
	defaultRetry,
	defaultTimeouts,
	type RegistryClient,
	type RegistryClientOptions,
	type Repository,
	type RepositoryOptions,
} from "./registry.ts";
import type { Place } from "./registry-error.ts";
import { createTransport, type Transport } from "./transport.ts";

const defaultConcurrency = 4;

export function createRegistryClient(options: RegistryClientOptions = {}): RegistryClient {
	return new Client(options);
}

/**
 * The slots of one registry. Small documents have one more than blobs, so as not to wait behind them. Pushes have their own: what
 * is pushed may be read from the same registry.
 *
 * A blob to push holds `pushes` from the first question to the last answer, and `uploads`, of which there are half as many, only while
 * its bytes are sent. Before and after that a registry writes to its disk and waits for it, some 15 times a blob: meanwhile others
 * can send.
 */
export interface Slots {
	readonly pulls: Limit;
	readonly pushes: Limit;
	readonly uploads: Limit;
	readonly documents: Limit;
}

class Client implements RegistryClient {
	readonly #options: RegistryClientOptions;
	readonly #transport: Transport;
	readonly #slots = new Map<string, Slots>();
	readonly #plainHosts = new Set<string>();

	constructor(options: RegistryClientOptions) {
		this.#options = options;
		this.#transport = createTransport({
			timeouts: { ...defaultTimeouts, ...options.timeouts },
			userAgent: options.userAgent ?? "slipway",
			proxy: options.proxy,
		});
	}

	repository(name: Reference, { auth, insecure = false }: RepositoryOptions): Repository {
		const { domain, path } = name;
		const retry = { ...defaultRetry, ...this.#options.retry };
		const slots = this.#slotsOf(domain);
		const serverFor = (endpoint: Endpoint, action: Place["action"]): Server => ({
			endpoint,
			exchange: createExchange({
				endpoint,
				transport: this.#transport,
				auth,
				// A mirror is a convenience: if it fails, the next server is asked at once.
				retry: endpoint.isMirror ? { ...retry, attempts: 1 } : retry,
				place: { domain, path, action },
				plainHosts: this.#plainHosts,
			}),
		});
		const { mirrors, origin } = endpointsOf(domain, this.#options.hosts ?? {}, { insecure });
		const servers = [...mirrors, origin].map((endpoint) => serverFor(endpoint, "pull"));
		return {
			...createReader({ domain, path, servers, slots, retry }),
			...createPusher({ domain, path, server: serverFor(origin, "push"), slots, retry }),
		};
	}

	async [Symbol.asyncDispose](): Promise<void> {
		await this.#transport[Symbol.asyncDispose]();
	}

	#slotsOf(domain: string): Slots {
		const size = this.#options.maxConcurrency ?? defaultConcurrency;
		const slots = this.#slots.get(domain) ?? {
			pulls: createLimit(size),
			pushes: createLimit(size * 2),
			uploads: createLimit(size),
			documents: createLimit(size + 1),
		};
		this.#slots.set(domain, slots);
		return slots;
	}
}
