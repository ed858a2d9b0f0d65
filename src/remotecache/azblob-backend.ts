import { posix } from "node:path";
import type { TokenCredential } from "@azure/identity";
import type {
	AnonymousCredential,
	BlockBlobClient,
	ContainerClient,
	RestError,
	StorageSharedKeyCredential,
} from "@azure/storage-blob";
import { SlipwayError, toError } from "../errors/errors.ts";
import { parseBlobForm } from "./attributes.ts";
import { type AzureOptions, parseAzureOptions } from "./azblob-options.ts";
import { nameOf } from "./cache-name.ts";
import {
	bufferStream,
	lazily,
	mountsSuffix,
	type ObjectStore,
	objectOrigin,
	objectTarget,
} from "./objects.ts";
import type { CacheBackend, CacheOptions } from "./remotecache.ts";

/** BuildKit's: blocks of this size, so many at a time. */
const blockBytes = 32 << 20;
const blocksAtATime = 4;

/** `type=azblob`: blobs in a container of Azure Blob Storage. */
export function createAzureBackend(env: Readonly<Record<string, string | undefined>>): CacheBackend {
	const storeOf = (attrs: CacheOptions["attrs"], suffix = ""): (() => Promise<ObjectStore>) => {
		const options = parseAzureOptions(attrs, env);
		const names = options.names.map((name) => name + suffix);
		return lazily(() => openAzureStore({ ...options, names }));
	};
	return {
		type: "azblob",
		target: (attrs) =>
			objectTarget("exporting cache to Azure Blob Storage", parseBlobForm(attrs), storeOf(attrs)),
		origin: (attrs) => objectOrigin(nameOf({ type: "azblob", attrs }), storeOf(attrs)),
		mounts: (attrs) => ({ name: "Azure Blob Storage", open: storeOf(attrs, mountsSuffix) }),
	};
}

async function openAzureStore(options: AzureOptions): Promise<ObjectStore> {
	// Loaded late: it takes longer than the rest of the program.
	const sdk = await import("@azure/storage-blob");
	const credential = await credentialFor(options, sdk);
	const service = new sdk.BlobServiceClient(options.accountUrl, credential, {
		userAgentOptions: { userAgentPrefix: "slipway" },
	});
	const container = service.getContainerClient(options.container);
	await makeContainer(container);
	const blobOf = (...path: readonly string[]): BlockBlobClient =>
		container.getBlockBlobClient(posix.join(options.prefix, ...path));
	const configOf = (name: string): BlockBlobClient => blobOf(options.manifestsPrefix, name);

	return {
		putBlob: async ({ digest, size }, open, { signal }) => {
			const blob = blobOf(options.blobsPrefix, digest);
			await mapped(`failed to upload blob ${blob.name}`, signal, async () => {
				if (await exists(blob, signal)) {
					return;
				}
				try {
					await blob.uploadStream(
						bufferStream(open()),
						Math.min(Math.max(size, 1), blockBytes),
						blocksAtATime,
						{ abortSignal: signal, conditions: { ifNoneMatch: "*" } },
					);
				} catch (error) {
					// Somebody else was faster.
					if (codeOf(error) !== "BlobAlreadyExists") {
						throw error;
					}
				}
			});
		},
		putConfig: async (bytes, { signal }) => {
			for (const name of options.names) {
				const blob = configOf(name);
				await mapped(`error writing manifest ${name}`, signal, () =>
					blob.upload(Buffer.from(bytes), bytes.length, { abortSignal: signal }),
				);
			}
			return undefined;
		},
		configs: async ({ signal }) => {
			const found: AsyncIterable<Uint8Array>[] = [];
			for (const name of options.names) {
				const blob = configOf(name);
				const what = `failed to load cache manifest ${name}`;
				if (await mapped(what, signal, () => exists(blob, signal))) {
					found.push(read(blob, 0, undefined, signal));
				}
			}
			return found;
		},
		blobs: {
			read: async function* ({ digest, size }, { offset = 0, length, signal }) {
				const blob = blobOf(options.blobsPrefix, digest);
				const wanted = Math.max(0, Math.min(length ?? size, size - offset));
				let bytes = 0;
				if (wanted > 0) {
					for await (const chunk of read(blob, offset, wanted, signal)) {
						bytes += chunk.length;
						yield chunk;
					}
				}
				if (bytes !== wanted) {
					throw new SlipwayError("data-loss", `blob ${blob.name} has ${bytes} bytes in place of ${wanted}`);
				}
			},
		},
	};
}

async function credentialFor(
	{ login, accountName }: AzureOptions,
	sdk: typeof import("@azure/storage-blob"),
): Promise<StorageSharedKeyCredential | AnonymousCredential | TokenCredential> {
	switch (login.kind) {
		case "key":
			return new sdk.StorageSharedKeyCredential(accountName, login.key);
		case "signature":
			return new sdk.AnonymousCredential();
		case "environment": {
			const { DefaultAzureCredential } = await import("@azure/identity");
			return new DefaultAzureCredential();
		}
	}
}

async function makeContainer(container: ContainerClient): Promise<void> {
	const signal = new AbortController().signal;
	await mapped(`failed to get properties of cache container ${container.containerName}`, signal, async () => {
		try {
			await container.getProperties();
		} catch (error) {
			if ((error as RestError).statusCode !== 404) {
				throw error;
			}
			await container.createIfNotExists();
		}
	});
}

async function exists(blob: BlockBlobClient, abortSignal: AbortSignal): Promise<boolean> {
	return await blob.exists({ abortSignal });
}

async function* read(
	blob: BlockBlobClient,
	offset: number,
	length: number | undefined,
	abortSignal: AbortSignal,
): AsyncGenerator<Uint8Array, void> {
	try {
		const { readableStreamBody } = await blob.download(offset, length, { abortSignal });
		for await (const chunk of readableStreamBody ?? []) {
			yield chunk as unknown as Uint8Array;
		}
	} catch (error) {
		throw fromSdk(error, `failed to read blob ${blob.name}`, abortSignal);
	}
}

function codeOf(error: unknown): string | undefined {
	return (error as { readonly code?: string }).code;
}

async function mapped<T>(what: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
	try {
		return await work();
	} catch (error) {
		throw fromSdk(error, what, signal);
	}
}

function fromSdk(error: unknown, what: string, signal: AbortSignal): SlipwayError {
	if (signal.aborted) {
		return toError(signal.reason);
	}
	if (error instanceof SlipwayError) {
		return error;
	}
	const login = loginFailure(error);
	if (login !== undefined) {
		return new SlipwayError("permission-denied", `${what}: ${login}`, { cause: error });
	}
	const { statusCode: status, code, message } = error as Partial<RestError>;
	const kind =
		status === 404
			? "not-found"
			: status === 401 || status === 403
				? "permission-denied"
				: status !== undefined && status < 500
					? "invalid-argument"
					: "unavailable";
	// The service repeats the whole request below its first line.
	const first = firstLine(message);
	return new SlipwayError(kind, `${what}: ${code === undefined ? "" : `${code}: `}${first}`, {
		cause: error,
	});
}

/** Of `@azure/identity`: nothing that could log in was found, or it was refused. */
function loginFailure(error: unknown): string | undefined {
	const { name = "", message, errors } = error as Partial<AggregateError>;
	if (!/^(?:CredentialUnavailable|Authentication|AggregateAuthentication)/.test(name)) {
		return undefined;
	}
	const causes = (errors ?? [{ message }]).map((each: { readonly message?: string }) =>
		firstLine(each.message),
	);
	return `no login to Azure succeeded (${causes.join("; ")}): give secret_access_key, an account_url with a shared access signature, or the builder one of the logins that Azure's DefaultAzureCredential looks for`;
}

function firstLine(text: string | undefined): string {
	return text?.split("\n", 1)[0] ?? "";
}
