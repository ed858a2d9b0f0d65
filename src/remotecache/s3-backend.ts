import type { S3Client } from "@aws-sdk/client-s3";
import { SlipwayError, toError } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";
import { parseBlobForm } from "./attributes.ts";
import { nameOf } from "./cache-name.ts";
import { inParts, lazily, mountsSuffix, type ObjectStore, objectOrigin, objectTarget } from "./objects.ts";
import type { CacheBackend, CacheOptions } from "./remotecache.ts";
import { parseS3Options, type S3Options } from "./s3-options.ts";

/** What is larger is sent in parts of this size, of which S3 takes 10,000. */
const partBytes = 16 << 20;
/** CopyObject takes no more. */
const maxCopyBytes = 5 * 1024 ** 3;

/** `type=s3`: objects in a bucket of Amazon S3, or of a service that speaks its protocol. */
export function createS3Backend(env: Environment): CacheBackend {
	const storeOf = (attrs: CacheOptions["attrs"], suffix = ""): (() => Promise<ObjectStore>) => {
		const options = parseS3Options(attrs, env);
		const names = options.names.map((name) => name + suffix);
		return lazily(() => openS3Store({ ...options, names }, proxiesOf(env)));
	};
	return {
		type: "s3",
		target: (attrs) => {
			const { maxUploads } = parseS3Options(attrs, env);
			return {
				...objectTarget("exporting cache to Amazon S3", parseBlobForm(attrs), storeOf(attrs)),
				...(maxUploads === undefined ? {} : { maxUploads }),
			};
		},
		origin: (attrs) => objectOrigin(nameOf({ type: "s3", attrs }), storeOf(attrs)),
		mounts: (attrs) => ({ name: "Amazon S3", open: storeOf(attrs, mountsSuffix) }),
	};
}

type Environment = Readonly<Record<string, string | undefined>>;

/** What Go programs make of the environment: programs of this machine are never asked through a proxy. */
function proxiesOf(env: Environment): Readonly<Record<string, string>> {
	const read = (name: string): string => env[name.toUpperCase()] || env[name] || "";
	return {
		HTTP_PROXY: read("http_proxy"),
		HTTPS_PROXY: read("https_proxy"),
		NO_PROXY: [read("no_proxy"), "localhost", "127.0.0.1", "[::1]", "::1"]
			.filter((each) => each !== "")
			.join(),
	};
}

async function openS3Store(options: S3Options, proxyEnv: ReturnType<typeof proxiesOf>): Promise<ObjectStore> {
	// Half a second of loading that only those pay who use it.
	const sdk = await import("@aws-sdk/client-s3");
	const { bucket, prefix } = options;
	const client = new sdk.S3Client({
		region: options.region,
		requestChecksumCalculation: "WHEN_REQUIRED",
		responseChecksumValidation: "WHEN_REQUIRED",
		requestHandler: { httpAgent: { proxyEnv }, httpsAgent: { proxyEnv } },
		...(options.credentials === undefined ? {} : { credentials: options.credentials }),
		...(options.endpoint === undefined
			? {}
			: { endpoint: options.endpoint, forcePathStyle: options.usePathStyle }),
		...(options.retryMode === undefined ? {} : { retryMode: options.retryMode }),
		...(options.maxAttempts === undefined ? {} : { maxAttempts: options.maxAttempts }),
	});
	const blobKey = (digest: Digest): string => `${prefix}${options.blobsPrefix}${digest}`;
	const configKey = (name: string): string => `${prefix}${options.manifestsPrefix}${name}`;
	const place = (Key: string): { Bucket: string; Key: string } => ({ Bucket: bucket, Key });

	const put = async (key: string, body: Uint8Array, abortSignal: AbortSignal): Promise<void> => {
		await client.send(new sdk.PutObjectCommand({ ...place(key), Body: body, ContentLength: body.length }), {
			abortSignal,
		});
	};

	const read = async function* (key: string, range: string | undefined, abortSignal: AbortSignal) {
		const { Body } = await client.send(
			new sdk.GetObjectCommand({ ...place(key), ...(range === undefined ? {} : { Range: range }) }),
			{ abortSignal },
		);
		if (Body === undefined) {
			throw new SlipwayError("data-loss", `object ${key} of bucket ${bucket} came without content`);
		}
		for await (const chunk of Body as AsyncIterable<Uint8Array>) {
			yield chunk;
		}
	};

	return {
		putBlob: async ({ digest, size }, open, { signal }) => {
			const key = blobKey(digest);
			await mapped(`could not write ${key} to bucket ${bucket}`, signal, async () => {
				const known = await head(client, sdk, place(key), signal);
				if (known !== undefined) {
					if (Date.now() - known.modifiedMs > options.touchRefreshMs) {
						await touch(client, sdk, { key, bucket, size: known.size }, signal);
					}
					return;
				}
				if (size <= partBytes) {
					await put(key, await wholeOf(open()), signal);
				} else {
					await uploadParts(client, sdk, place(key), open(), signal);
				}
			});
		},
		putConfig: async (bytes, { signal }) => {
			for (const name of options.names) {
				await mapped(`error writing manifest: ${name}`, signal, () => put(configKey(name), bytes, signal));
			}
			return undefined;
		},
		configs: async ({ signal }) => {
			const key = configKey(options.names[0] ?? "");
			return await mapped(`could not read ${key} of bucket ${bucket}`, signal, async () =>
				(await head(client, sdk, place(key), signal)) === undefined ? [] : [read(key, undefined, signal)],
			);
		},
		blobs: {
			read: async function* ({ digest, size }, { offset = 0, length, signal }) {
				const end = length === undefined ? size : Math.min(size, offset + length);
				if (end <= offset) {
					return;
				}
				const range = offset === 0 && end === size ? undefined : `bytes=${offset}-${end - 1}`;
				let bytes = 0;
				try {
					for await (const chunk of read(blobKey(digest), range, signal)) {
						bytes += chunk.length;
						yield chunk;
					}
				} catch (error) {
					throw fromSdk(error, `could not read ${blobKey(digest)} of bucket ${bucket}`, signal);
				}
				if (bytes !== end - offset) {
					throw new SlipwayError(
						"data-loss",
						`object ${blobKey(digest)} of bucket ${bucket} has ${bytes} bytes in place of ${end - offset}`,
					);
				}
			},
		},
	};
}

type Sdk = typeof import("@aws-sdk/client-s3");
type Place = { readonly Bucket: string; readonly Key: string };

/** Undefined if it is not there. */
async function head(
	client: S3Client,
	sdk: Sdk,
	place: Place,
	abortSignal: AbortSignal,
): Promise<{ readonly modifiedMs: number; readonly size: number } | undefined> {
	try {
		const { LastModified, ContentLength } = await client.send(new sdk.HeadObjectCommand(place), {
			abortSignal,
		});
		return { modifiedMs: LastModified?.getTime() ?? Date.now(), size: ContentLength ?? 0 };
	} catch (error) {
		if (statusOf(error) === 404) {
			return undefined;
		}
		throw error;
	}
}

async function uploadParts(
	client: S3Client,
	sdk: Sdk,
	place: Place,
	chunks: AsyncIterable<Uint8Array>,
	abortSignal: AbortSignal,
): Promise<void> {
	await multipart(client, sdk, place, abortSignal, async function* (UploadId) {
		let number = 1;
		for await (const part of inParts(chunks, partBytes)) {
			const { ETag } = await client.send(
				new sdk.UploadPartCommand({
					...place,
					UploadId,
					PartNumber: number++,
					Body: part,
					ContentLength: part.length,
				}),
				{ abortSignal },
			);
			yield ETag;
		}
	});
}

/** Makes the object new for rules that remove what is old: it is copied onto itself. */
async function touch(
	client: S3Client,
	sdk: Sdk,
	{ key, bucket, size }: { readonly key: string; readonly bucket: string; readonly size: number },
	abortSignal: AbortSignal,
): Promise<void> {
	const place = { Bucket: bucket, Key: key };
	const CopySource = encodeURI(`${bucket}/${key}`);
	if (size < maxCopyBytes) {
		await client.send(
			new sdk.CopyObjectCommand({
				...place,
				CopySource,
				Metadata: { "updated-at": new Date().toISOString() },
				MetadataDirective: "REPLACE",
			}),
			{ abortSignal },
		);
		return;
	}
	await multipart(client, sdk, place, abortSignal, async function* (UploadId) {
		for (let at = 0, number = 1; at < size; at += maxCopyBytes, number++) {
			const { CopyPartResult } = await client.send(
				new sdk.UploadPartCopyCommand({
					...place,
					UploadId,
					PartNumber: number,
					CopySource,
					CopySourceRange: `bytes=${at}-${Math.min(size, at + maxCopyBytes) - 1}`,
				}),
				{ abortSignal },
			);
			yield CopyPartResult?.ETag;
		}
	});
}

/** `send` gives the tag of each part. Nothing stays of an upload that fails. */
async function multipart(
	client: S3Client,
	sdk: Sdk,
	place: Place,
	abortSignal: AbortSignal,
	send: (uploadId: string | undefined) => AsyncIterable<string | undefined>,
): Promise<void> {
	const { UploadId } = await client.send(new sdk.CreateMultipartUploadCommand(place), { abortSignal });
	try {
		const Parts: { ETag: string | undefined; PartNumber: number }[] = [];
		for await (const ETag of send(UploadId)) {
			Parts.push({ ETag, PartNumber: Parts.length + 1 });
		}
		await client.send(
			new sdk.CompleteMultipartUploadCommand({ ...place, UploadId, MultipartUpload: { Parts } }),
			{ abortSignal },
		);
	} catch (error) {
		await client.send(new sdk.AbortMultipartUploadCommand({ ...place, UploadId })).catch(() => {});
		throw error;
	}
}

async function wholeOf(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
	const parts: Uint8Array[] = [];
	for await (const chunk of chunks) {
		parts.push(chunk);
	}
	return Buffer.concat(parts);
}

function statusOf(error: unknown): number | undefined {
	return (error as { readonly $metadata?: { readonly httpStatusCode?: number } })?.$metadata?.httpStatusCode;
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
	const status = statusOf(error);
	const { name, message } = error as Error;
	const code =
		status === 404
			? "not-found"
			: status === 401 || status === 403
				? "permission-denied"
				: status !== undefined && status < 500
					? "invalid-argument"
					: "unavailable";
	return new SlipwayError(code, `${what}: ${name}: ${message}`, { cause: error });
}
