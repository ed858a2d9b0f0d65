import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import type { Readable } from "node:stream";
import type { CacheManager, ImmutableRef } from "../cache/cache.ts";
import { redactUrl, SlipwayError, toError, wrap } from "../errors/errors.ts";
import { algorithmOf, type Digest } from "../oci/digest.ts";
import { progressTime } from "../progress/progress.ts";
import type { HttpDownload } from "./http-attrs.ts";
import type { HttpResponse } from "./http-client.ts";
import { parseHttpDate } from "./http-date.ts";
import type { SourceOptions } from "./source.ts";

export interface SaveOptions extends SourceOptions {
	readonly cache: Pick<CacheManager, "createMutable">;
	readonly download: Pick<HttpDownload, "url" | "perm" | "uid" | "gid">;
	/** Of the record; default: of a download. */
	readonly description?: string;
	readonly filename: string;
	/** What the bytes must digest to; the digest is of its algorithm. */
	readonly wanted: Digest | undefined;
	readonly maxBytes: number;
}

/** Writes an answer's body into a tree of one file. Nothing is kept of a file that is too large, cut short or not the wanted one. */
export async function saveDownload(
	response: HttpResponse,
	options: SaveOptions,
): Promise<{ readonly ref: ImmutableRef; readonly digest: Digest }> {
	const { cache, download, filename, wanted, signal, progress, vertex } = options;
	const url = redactUrl(download.url);
	const { description = `http url ${url}` } = options;
	const ref = await cache.createMutable({ description, signal, progress, vertex });
	try {
		const path = `${ref.directory()}/${filename}`;
		const file = await open(path, "wx", 0o600);
		let digest: Digest;
		try {
			digest = await writeBody(response, file, options);
			await setAttributes(file, response, download);
		} finally {
			await file.close();
		}
		if (wanted !== undefined && digest !== wanted) {
			throw new SlipwayError("failed-precondition", `digest mismatch ${digest}: ${wanted}`);
		}
		return { ref: await ref.commit(), digest };
	} catch (thrown) {
		response.discard();
		await ref.discard();
		const error = signal.aborted ? toError(signal.reason) : toError(thrown);
		throw error.code === "canceled" || error.message.startsWith("failed to fetch ")
			? error
			: wrap(error, `failed to fetch ${url}`);
	}
}

async function writeBody(response: HttpResponse, file: FileHandle, options: SaveOptions): Promise<Digest> {
	const { download, maxBytes, progress, vertex, wanted } = options;
	const tooLarge = (): SlipwayError =>
		new SlipwayError("resource-exhausted", `the file is larger than the limit of ${maxBytes} bytes`);
	const announced = Number(response.header("content-length") ?? 0);
	if (announced > maxBytes) {
		throw tooLarge();
	}
	const gzip = response.header("content-encoding")?.toLowerCase() === "gzip";
	const algorithm = wanted === undefined ? "sha256" : algorithmOf(wanted);
	const hash = createHash(algorithm);
	const started = progressTime();
	let size = 0;
	let reported = started;
	const report = (completed: number | undefined): void => {
		const timestamp = progressTime();
		// A few a second are all that anybody sees.
		if (completed !== undefined || timestamp - reported > 150) {
			reported = timestamp;
			const total = gzip ? 0 : announced;
			progress.write({
				kind: "status",
				status: {
					vertex,
					id: redactUrl(download.url),
					name: "downloading",
					current: size,
					total,
					timestamp,
					started,
					...(completed === undefined ? {} : { completed }),
				},
			});
		}
	};
	// Go's client, and so BuildKit, decodes what it has asked for; the limit is on what is written.
	for await (const chunk of gzip ? gunzip(response.body) : response.body) {
		size += chunk.length;
		if (size > maxBytes) {
			throw tooLarge();
		}
		const written = writeAll(file, chunk);
		hash.update(chunk);
		await written;
		report(undefined);
	}
	report(progressTime());
	return `${algorithm}:${hash.digest("hex")}` as Digest;
}

async function* gunzip(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void> {
	const [{ Readable, pipeline }, { createGunzip }] = await Promise.all([
		import("node:stream"),
		import("node:zlib"),
	]);
	const encoded: Readable = Readable.from(body, { objectMode: false });
	// The error of either end comes out of the iteration.
	yield* pipeline(encoded, createGunzip(), () => {});
}

async function writeAll(file: FileHandle, chunk: Uint8Array): Promise<void> {
	for (let at = 0; at < chunk.length; ) {
		const { bytesWritten } = await file.write(chunk, at);
		at += bytesWritten;
	}
}

async function setAttributes(
	file: FileHandle,
	response: HttpResponse,
	download: SaveOptions["download"],
): Promise<void> {
	const { perm, uid, gid } = download;
	if (uid !== 0 || gid !== 0) {
		await file.chown(uid, gid);
	}
	// After the owner: changing that one clears bits.
	await file.chmod(perm === 0 ? 0o600 : perm & 0o777);
	const time = parseHttpDate(response.header("last-modified")) ?? new Date(0);
	await file.utimes(time, time);
}
