import { collect, rangeOf, Verifier } from "../content/bytes.ts";
import { hasCode, SlipwayError } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { type Digest, isDigest } from "../oci/digest.ts";
import { maxManifestBytes, parseManifestDocument } from "../oci/manifest.ts";
import { isIndexType, isManifestType, mediaTypes } from "../oci/media-types.ts";
import type { Slots } from "./client.ts";
import type { Endpoint } from "./endpoint.ts";
import type { Exchange, ExchangeRequest } from "./exchange.ts";
import type { RepositoryReader, RetryPolicy } from "./registry.ts";
import { type Place, unexpectedStatus } from "./registry-error.ts";
import { createRetrier, withRetries } from "./retry.ts";
import { markRetryable, type TransportResponse } from "./transport.ts";

export interface Server {
	readonly endpoint: Endpoint;
	readonly exchange: Exchange;
}

export interface ReaderOptions {
	readonly domain: string;
	readonly path: string;
	/** Asked in order; the last is the registry itself, and its failure is the one that is reported. */
	readonly servers: readonly Server[];
	readonly slots: Slots;
	readonly retry: RetryPolicy;
}

const accept = [
	mediaTypes.dockerManifest,
	mediaTypes.dockerManifestList,
	mediaTypes.ociManifest,
	mediaTypes.ociIndex,
	"*/*",
].join(", ");

/** So much must have arrived since the last break for attempts to count anew; a server that sends a byte and breaks is given up. */
const progressBytes = 1 << 20;

interface Answer {
	readonly response: TransportResponse;
	readonly server: Server;
}

export function createReader(options: ReaderOptions): RepositoryReader {
	const { domain, path, servers, slots, retry } = options;
	const place: Place = { domain, path, action: "pull" };

	/** The first server that has it. Throws what the last one says. */
	const ask = async (
		request: Pick<ExchangeRequest, "method" | "headers" | "signal">,
		what: string,
		notFound: string,
		candidates: readonly Server[] = servers,
	): Promise<Answer> => {
		let failure: unknown;
		for (const server of candidates) {
			try {
				const namespace = server.endpoint.isMirror ? `?ns=${encodeURIComponent(domain)}` : "";
				const response = await server.exchange.send({
					...request,
					target: `/${path}/${what}${namespace}`,
					scopes: [`repository:${path}:pull`],
				});
				if (response.status >= 200 && response.status < 300) {
					return { response, server };
				}
				if (response.status === 404) {
					response.discard();
					failure = new SlipwayError("not-found", `${notFound}: not found`);
				} else {
					failure = await unexpectedStatus(response, request.method, place);
				}
			} catch (thrown) {
				failure = thrown;
			}
			if (request.signal.aborted) {
				break;
			}
		}
		throw failure;
	};

	/** Reads a document and checks it against its digest, if that is known. */
	const getDocument = async (
		target: string,
		digest: Digest | undefined,
		signal: AbortSignal,
		candidates: readonly Server[] = servers,
	): Promise<{ readonly descriptor: Descriptor; readonly bytes: Uint8Array }> => {
		const name = nameOf(domain, path, target);
		return withRetries(retry, signal, async () => {
			const { response } = await ask(
				{ method: "GET", headers: { accept }, signal },
				`manifests/${target}`,
				name,
				candidates,
			);
			checkSize(response, name);
			const bytes = await collect(response.body, { maxBytes: maxManifestBytes, what: `manifest of ${name}` });
			const verifier = new Verifier(digest === undefined ? {} : { digest });
			verifier.update(bytes);
			try {
				const actual = verifier.finish();
				const mediaType = typeOf(response);
				refuseSchema1(mediaType);
				const document = parseManifestDocument(bytes, mediaType);
				return { descriptor: { mediaType: document.mediaType, digest: actual, size: bytes.length }, bytes };
			} catch (thrown) {
				const { code, message } = thrown as SlipwayError;
				throw new SlipwayError(code, `manifest of ${name}: ${message}`, { cause: thrown });
			}
		});
	};

	return {
		resolve: async (target, { signal, withBytes = false }) => {
			const name = nameOf(domain, path, target);
			const digest = isDigest(target) ? target : undefined;
			using _slot = await slots.documents.acquire({ signal });
			if (withBytes) {
				return getDocument(target, digest, signal);
			}
			let head: Answer;
			try {
				head = await ask({ method: "HEAD", headers: { accept }, signal }, `manifests/${target}`, name);
			} catch (thrown) {
				// Some registries know no HEAD; and what a HEAD may not say, such as why access is refused, a GET may.
				const code = thrown instanceof SlipwayError ? thrown.code : undefined;
				if (code !== "permission-denied" && code !== "unknown") {
					throw thrown;
				}
				return getDocument(target, digest, signal);
			}
			const { response, server } = head;
			response.discard();
			const stated = digest ?? response.header("docker-content-digest") ?? "";
			const size = checkSize(response, name);
			const mediaType = typeOf(response);
			refuseSchema1(mediaType);
			const isKnown = isManifestType(mediaType) || isIndexType(mediaType);
			if (!isDigest(stated) || size === undefined || !isKnown) {
				return getDocument(target, digest, signal, [server]);
			}
			return { descriptor: { mediaType, digest: stated, size } };
		},

		manifest: async (digest, { signal }) => {
			using _slot = await slots.documents.acquire({ signal });
			return getDocument(digest, digest, signal);
		},

		blobSize: async (digest, { signal }) => {
			using _slot = await slots.documents.acquire({ signal });
			const name = nameOf(domain, path, digest);
			const { response } = await ask({ method: "HEAD", signal }, `blobs/${digest}`, name);
			response.discard();
			const size = contentLength(response);
			if (size === undefined) {
				throw new SlipwayError("unknown", `${name}: the registry does not say how large the blob is`);
			}
			return size;
		},

		hasBlob: async (digest, { signal }) => {
			using _slot = await slots.documents.acquire({ signal });
			try {
				const { response } = await ask(
					{ method: "HEAD", signal },
					`blobs/${digest}`,
					digest,
					servers.slice(-1),
				);
				response.discard();
				return true;
			} catch (thrown) {
				if (hasCode(thrown, "not-found")) {
					return false;
				}
				throw thrown;
			}
		},

		blob: async function* (descriptor, readOptions) {
			const { digest, size } = descriptor;
			const { signal } = readOptions;
			const { start, end } = rangeOf(digest, size, readOptions);
			if (start === end) {
				return;
			}
			using _waiting = await slots.pulls.acquire({ signal });
			using _slot = await slots.documents.acquire({ signal });
			const retrier = createRetrier(retry, signal);
			let at = start;
			let lastBreak = start;
			while (at < end) {
				try {
					const { response } = await ask(
						{ method: "GET", headers: rangeHeader(at, end, size), signal },
						`blobs/${digest}`,
						nameOf(domain, path, digest),
					);
					for await (const chunk of part(response, digest, size, at, end)) {
						at += chunk.length;
						yield chunk;
					}
				} catch (thrown) {
					if (at - lastBreak >= progressBytes) {
						retrier.reset();
					}
					lastBreak = at;
					await retrier.pause(thrown);
				}
			}
		},
	};
}

function nameOf(domain: string, path: string, target: string): string {
	return `${domain}/${path}${isDigest(target) ? "@" : ":"}${target}`;
}

/** The size that the answer states. Too large ones are refused before their first byte. */
function checkSize(response: TransportResponse, name: string): number | undefined {
	const size = contentLength(response);
	if (size !== undefined && size > maxManifestBytes) {
		response.discard();
		throw new SlipwayError("resource-exhausted", `rejecting ${size} byte manifest for ${name}`);
	}
	return size;
}

function contentLength(response: TransportResponse): number | undefined {
	const text = response.header("content-length") ?? "";
	const size = /^\d+$/.test(text) ? Number(text) : undefined;
	return size !== undefined && Number.isSafeInteger(size) ? size : undefined;
}

function typeOf(response: TransportResponse): string {
	return (response.header("content-type") ?? "").split(";")[0]?.trim() ?? "";
}

/** Docker's first format cannot be verified by digest; BuildKit's words. */
function refuseSchema1(mediaType: string): void {
	if (mediaType.startsWith("application/vnd.docker.distribution.manifest.v1+")) {
		throw new SlipwayError(
			"failed-precondition",
			"support Docker Image manifest version 2, schema 1 has been removed. " +
				"More information at https://docs.docker.com/go/deprecated-image-specs/",
		);
	}
}

function rangeHeader(at: number, end: number, size: number): Readonly<Record<string, string>> {
	return at === 0 && end === size ? {} : { range: `bytes=${at}-${end - 1}` };
}

/** The bytes from `at` to `end` of an answer that may be the whole blob or a part; fails if they are not exactly those. */
async function* part(
	response: TransportResponse,
	digest: Digest,
	size: number,
	at: number,
	end: number,
): AsyncGenerator<Uint8Array, void> {
	let skip = at;
	let left = end - at;
	if (response.status === 206) {
		const range = response.header("content-range") ?? "";
		if (range !== "" && !range.startsWith(`bytes ${at}-`)) {
			response.discard();
			throw new SlipwayError(
				"data-loss",
				`blob ${digest}: registry sent ${range} instead of bytes ${at}-${end - 1}`,
			);
		}
		skip = 0;
	} else {
		const length = contentLength(response);
		if (length !== undefined && length !== size) {
			response.discard();
			throw new SlipwayError("data-loss", `blob ${digest}: registry has ${length} bytes instead of ${size}`);
		}
	}
	const isPart = skip === 0 && response.status === 206;
	for await (const chunk of response.body) {
		const useful = skip >= chunk.length ? undefined : skip === 0 ? chunk : chunk.subarray(skip);
		skip -= Math.min(skip, chunk.length);
		if (useful === undefined) {
			continue;
		}
		if (useful.length > left) {
			if (isPart || end === size) {
				throw new SlipwayError("data-loss", `blob ${digest} is longer than the expected ${size} bytes`);
			}
			// A server without ranges sends the rest as well; leaving the loop closes the connection.
			if (left > 0) {
				yield useful.subarray(0, left);
			}
			return;
		}
		left -= useful.length;
		if (useful.length > 0) {
			yield useful;
		}
	}
	if (left > 0) {
		throw markRetryable(
			new SlipwayError("data-loss", `blob ${digest} ended after ${end - left} of the expected ${size} bytes`),
		);
	}
}
