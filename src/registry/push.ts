import { SlipwayError } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import type { Slots } from "./client.ts";
import type { ExchangeRequest } from "./exchange.ts";
import type { Server } from "./pull.ts";
import type { PushBlobOptions, PushedBlob, Repository, RepositoryReader, RetryPolicy } from "./registry.ts";
import { type Place, unexpectedStatus } from "./registry-error.ts";
import { withRetries } from "./retry.ts";
import { markRetryable, type TransportResponse } from "./transport.ts";

export interface PusherOptions {
	readonly domain: string;
	readonly path: string;
	readonly server: Server;
	readonly slots: Slots;
	readonly retry: RetryPolicy;
}

/** Each try costs a request; a blob that is in many repositories is found in the first ones or not worth it. */
const maxMounts = 3;

type Blob = Pick<Descriptor, "digest" | "size">;
type Open = () => AsyncIterable<Uint8Array>;

export function createPusher(options: PusherOptions): Omit<Repository, keyof RepositoryReader> {
	const { path, domain, server, slots, retry } = options;
	const place: Place = { domain, path, action: "push" };
	const scopes = [`repository:${path}:pull,push`];

	const send = async (
		request: Omit<ExchangeRequest, "scopes"> & { readonly scopes?: readonly string[] },
		accepted: readonly number[],
	): Promise<TransportResponse> => {
		const response = await server.exchange.send({ scopes, ...request });
		if (!accepted.includes(response.status)) {
			const error = await unexpectedStatus(response, request.method, place);
			// The upload is gone (another server behind the same name, a restart): begin again.
			throw response.status === 404 && request.target instanceof URL ? markRetryable(error) : error;
		}
		response.discard();
		return response;
	};

	const exists = async ({ digest }: Blob, signal: AbortSignal): Promise<boolean> => {
		const response = await send({ method: "HEAD", target: `/${path}/blobs/${digest}`, signal }, [200, 404]);
		return response.status === 200;
	};

	const mount = async (
		{ digest }: Blob,
		from: string,
		signal: AbortSignal,
	): Promise<"mounted" | "refused" | URL> => {
		try {
			const query = `mount=${encodeURIComponent(digest)}&from=${encodeURIComponent(from)}`;
			const response = await send(
				{
					method: "POST",
					target: `/${path}/blobs/uploads/?${query}`,
					headers: { "content-length": "0" },
					scopes: [...scopes, `repository:${from}:pull`],
					signal,
				},
				[201, 202],
			);
			return response.status === 201 ? "mounted" : locationOf(response, place);
		} catch (thrown) {
			// A repository that this login may not read is no reason not to push.
			if (thrown instanceof SlipwayError && mountRefusals.has(thrown.code)) {
				return "refused";
			}
			throw thrown;
		}
	};

	const begin = async (signal: AbortSignal): Promise<URL> => {
		const response = await send(
			{
				method: "POST",
				target: `/${path}/blobs/uploads/`,
				headers: { "content-length": "0" },
				signal,
			},
			[200, 202, 204],
		);
		return locationOf(response, place);
	};

	const uploadWhole = async (
		location: URL,
		blob: Blob,
		open: Open,
		{ signal, onProgress }: PushBlobOptions,
	) => {
		using slot = await slots.uploads.acquire({ signal });
		const onSent = (): void => slot[Symbol.dispose]();
		await send(
			{
				method: "PUT",
				target: withDigest(location, blob.digest),
				headers: { "content-type": "application/octet-stream", "content-length": String(blob.size) },
				body: () => (blob.size === 0 ? new Uint8Array() : counted(open(), blob, { onProgress, onSent })),
				signal,
				retry: false,
			},
			[200, 201, 204],
		);
	};

	const uploadChunks = async (
		location: URL,
		blob: Blob,
		open: Open,
		{ signal, onProgress }: PushBlobOptions,
		chunkBytes: number,
	) => {
		using _slot = await slots.uploads.acquire({ signal });
		let at = 0;
		for await (const chunk of regrouped(counted(open(), blob, {}), chunkBytes)) {
			const response = await send(
				{
					method: "PATCH",
					target: location,
					headers: {
						"content-type": "application/octet-stream",
						"content-length": String(chunk.length),
						"content-range": `${at}-${at + chunk.length - 1}`,
					},
					body: () => chunk,
					signal,
					retry: false,
				},
				[200, 202, 204],
			);
			location = locationOf(response, place);
			at += chunk.length;
			onProgress?.(at);
		}
		await send(
			{
				method: "PUT",
				target: withDigest(location, blob.digest),
				headers: { "content-length": "0" },
				signal,
			},
			[200, 201, 204],
		);
	};

	return {
		pushBlob: async (blob, open, pushOptions): Promise<PushedBlob> => {
			const { signal, mountFrom = [], chunkBytes } = pushOptions;
			using _slot = await slots.pushes.acquire({ signal });
			if (await exists(blob, signal)) {
				return { outcome: "exists" };
			}
			let location: URL | undefined;
			for (const from of mountFrom.filter((each) => each !== path).slice(0, maxMounts)) {
				const answer = await mount(blob, from, signal);
				if (answer === "mounted") {
					return { outcome: "mounted", mountedFrom: from };
				}
				if (answer !== "refused") {
					location = answer;
				}
			}
			await withRetries(retry, signal, async () => {
				const to = location ?? (await begin(signal));
				location = undefined;
				if (chunkBytes === undefined || blob.size === 0) {
					await uploadWhole(to, blob, open, pushOptions);
				} else {
					await uploadChunks(to, blob, open, pushOptions, chunkBytes);
				}
			});
			return { outcome: "uploaded" };
		},

		pushManifest: async ({ bytes, mediaType }, tags, { signal }) => {
			using _slot = await slots.pushes.acquire({ signal });
			const digest = sha256(bytes);
			for (const target of tags.length === 0 ? [digest] : tags) {
				const response = await send(
					{
						method: "PUT",
						target: `/${path}/manifests/${target}`,
						headers: { "content-type": mediaType, "content-length": String(bytes.length) },
						body: () => bytes,
						signal,
					},
					[200, 201, 202, 204],
				);
				const stored = response.header("docker-content-digest");
				if (stored !== undefined && stored !== digest) {
					throw new SlipwayError(
						"data-loss",
						`registry ${domain} stored the manifest of ${path} as ${stored} instead of ${digest}`,
					);
				}
			}
			return { mediaType, digest, size: bytes.length };
		},
	};
}

const mountRefusals: ReadonlySet<SlipwayError["code"]> = new Set([
	"permission-denied",
	"unauthenticated",
	"not-found",
	"invalid-argument",
	"unknown",
]);

function locationOf(response: TransportResponse, { domain, path }: Place): URL {
	const location = response.header("location");
	const url = location === undefined ? null : URL.parse(location, response.url.href);
	if (url === null || (url.protocol !== "https:" && url.protocol !== "http:")) {
		throw new SlipwayError(
			"unavailable",
			`registry ${domain} gave no place to upload to for repository ${path}`,
		);
	}
	return url;
}

function withDigest(location: URL, digest: Digest): URL {
	const url = new URL(location);
	url.searchParams.set("digest", digest);
	return url;
}

interface CountedOptions {
	readonly onProgress?: PushBlobOptions["onProgress"];
	/** The connection has taken the last byte. */
	readonly onSent?: () => void;
}

async function* counted(
	chunks: AsyncIterable<Uint8Array>,
	{ digest, size }: Blob,
	{ onProgress, onSent }: CountedOptions,
): AsyncGenerator<Uint8Array, void> {
	let bytes = 0;
	for await (const chunk of chunks) {
		bytes += chunk.length;
		if (bytes > size) {
			throw new SlipwayError("data-loss", `blob ${digest} to push is longer than its ${size} bytes`);
		}
		yield chunk;
		onProgress?.(bytes);
	}
	if (bytes < size) {
		throw new SlipwayError("data-loss", `blob ${digest} to push ended after ${bytes} of ${size} bytes`);
	}
	onSent?.();
}

async function* regrouped(chunks: AsyncIterable<Uint8Array>, size: number): AsyncGenerator<Uint8Array, void> {
	let parts: Uint8Array[] = [];
	let held = 0;
	for await (let chunk of chunks) {
		while (held + chunk.length >= size) {
			parts.push(chunk.subarray(0, size - held));
			yield Buffer.concat(parts);
			chunk = chunk.subarray(size - held);
			parts = [];
			held = 0;
		}
		if (chunk.length > 0) {
			parts.push(chunk);
			held += chunk.length;
		}
	}
	if (held > 0) {
		yield Buffer.concat(parts);
	}
}
