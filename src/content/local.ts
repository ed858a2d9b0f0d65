import { randomBytes } from "node:crypto";
import {
	closeSync,
	existsSync,
	mkdirSync,
	openSync,
	readdirSync,
	readFileSync,
	renameSync,
	rmSync,
	statSync,
	unlinkSync,
	writeFileSync,
	writevSync,
} from "node:fs";
import { findDetail, SlipwayError, toError, wrap } from "../errors/errors.ts";
import { algorithmOf, type Digest, encodedOf, isDigest } from "../oci/digest.ts";
import { checkAborted, discard, Verifier, verifyBlob } from "./bytes.ts";
import type { BlobInfo, ContentStore, LocalContent, ReadOptions, WriteOptions } from "./content.ts";
import { fileInfo, readFileChunks } from "./file-chunks.ts";

/**
 * A content store in a directory that one process owns: `blobs/<algorithm>/<hex>`, and `ingest/` for what is under way.
 *
 * A blob is written to `ingest` and renamed, so that a killed process leaves only files in `ingest`, which the next
 * `open` removes. Blobs are not fsynced: that costs up to seconds per large layer, and only the machine's death
 * can lose bytes. Instead `open` sees that the machine was started again (its boot id, kept in the file `boot`) and
 * reads once more what was written in the last minutes before that, as far as the kernel may not have had written it
 * out; damaged blobs are removed, and are then simply missing.
 *
 * File calls are synchronous: a batch of 1 MiB goes to the page cache in some 0.2 ms, less than a trip to libuv's threads
 * costs under load, and the caller's network waits between. Chunks are held until a batch is full: a source must not
 * write into one again.
 */
export type LocalContentStore = ContentStore & LocalContent;

export interface OpenLocalOptions {
	readonly root: string;
	readonly signal: AbortSignal;
	/** Identifies this run of the machine; default: the kernel's boot id. */
	readonly bootId?: string;
}

/** Linux writes pages out after 30 s by default (`dirty_expire_centisecs`); four times that is enough for slow disks. */
const unsettledMs = 120_000;
const batchBytes = 1 << 20;

export async function openLocalContentStore(options: OpenLocalOptions): Promise<LocalContentStore> {
	const { root, signal } = options;
	const bootId = options.bootId ?? readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
	const store = new LocalStore(root);
	try {
		rmSync(`${root}/ingest`, { recursive: true, force: true });
		mkdirSync(`${root}/ingest`, { recursive: true, mode: 0o700 });
		mkdirSync(`${root}/blobs/sha256`, { recursive: true, mode: 0o700 });
		const bootFile = `${root}/boot`;
		const lastBoot = existsSync(bootFile) ? readFileSync(bootFile, "utf8") : bootId;
		if (lastBoot !== bootId) {
			await removeDamaged(store, signal);
		}
		if (lastBoot !== bootId || !existsSync(bootFile)) {
			writeFileSync(`${root}/ingest/boot`, bootId);
			renameSync(`${root}/ingest/boot`, bootFile);
		}
	} catch (thrown) {
		throw wrap(thrown, `content store ${root}`);
	}
	return store;
}

async function removeDamaged(store: LocalContentStore, signal: AbortSignal): Promise<void> {
	const blobs: { readonly digest: Digest; readonly writtenMs: number }[] = [];
	let lastMs = 0;
	for await (const { digest } of store.list()) {
		const writtenMs = statSync(store.path(digest)).ctimeMs;
		lastMs = Math.max(lastMs, writtenMs);
		blobs.push({ digest, writtenMs });
	}
	for (const { digest, writtenMs } of blobs) {
		if (writtenMs >= lastMs - unsettledMs && !(await verifyBlob(store, digest, { signal }))) {
			await store.delete(digest);
		}
	}
}

class LocalStore implements ContentStore, LocalContent {
	readonly #root: string;
	/** The state of a blob's file when its bytes were known to be right. */
	readonly #confirmed = new Map<Digest, string>();

	constructor(root: string) {
		this.#root = root;
	}

	path(digest: Digest): string {
		return `${this.#root}/blobs/${algorithmOf(digest)}/${encodedOf(digest)}`;
	}

	temporaryPath(): string {
		return `${this.#root}/ingest/${randomBytes(12).toString("hex")}`;
	}

	async info(digest: Digest): Promise<BlobInfo | undefined> {
		return fileInfo(this.path(digest), digest);
	}

	read(digest: Digest, options: ReadOptions): AsyncIterable<Uint8Array> {
		return readFileChunks(this.path(digest), digest, options);
	}

	async write(chunks: AsyncIterable<Uint8Array>, { expected, signal }: WriteOptions): Promise<BlobInfo> {
		checkAborted(signal);
		const known = expected?.digest === undefined ? undefined : await this.info(expected.digest);
		if (known !== undefined) {
			discard(chunks);
			return known;
		}
		const temporary = this.temporaryPath();
		try {
			const info = await writeFile(temporary, chunks, expected, signal);
			this.#place(temporary, info.digest);
			return info;
		} catch (thrown) {
			rmSync(temporary, { force: true });
			throw explain(thrown, expected?.digest);
		}
	}

	async adopt(file: string, info: BlobInfo): Promise<void> {
		try {
			const { size } = statSync(file);
			if (size !== info.size) {
				throw new SlipwayError(
					"data-loss",
					`file for blob ${info.digest} has ${size} bytes instead of ${info.size}`,
				);
			}
			this.#place(file, info.digest);
		} catch (thrown) {
			throw explain(thrown, info.digest);
		}
	}

	isConfirmed(digest: Digest): boolean {
		const state = this.#confirmed.get(digest);
		return state !== undefined && state === fileState(this.path(digest));
	}

	confirmation(digest: Digest): () => void {
		const state = fileState(this.path(digest));
		return () => {
			if (state !== undefined) {
				this.#confirmed.set(digest, state);
			}
		};
	}

	async delete(digest: Digest): Promise<void> {
		this.#confirmed.delete(digest);
		rmSync(this.path(digest), { force: true });
	}

	async *list(): AsyncGenerator<BlobInfo, void> {
		for (const algorithm of readdirSync(`${this.#root}/blobs`)) {
			for (const encoded of readdirSync(`${this.#root}/blobs/${algorithm}`)) {
				const digest = `${algorithm}:${encoded}`;
				const info = isDigest(digest) ? await this.info(digest) : undefined;
				if (info !== undefined) {
					yield info;
				}
			}
		}
	}

	/** Moves a finished file to its name; if the blob is there already the file is not needed. */
	#place(file: string, digest: Digest): void {
		const target = this.path(digest);
		if (existsSync(target)) {
			unlinkSync(file);
			return;
		}
		if (algorithmOf(digest) !== "sha256") {
			mkdirSync(`${this.#root}/blobs/${algorithmOf(digest)}`, { recursive: true, mode: 0o700 });
		}
		renameSync(file, target);
		this.confirmation(digest)();
	}
}

/** Changes with every write to the file, by whomever. */
function fileState(path: string): string | undefined {
	const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
	return stat && `${stat.dev} ${stat.ino} ${stat.size} ${stat.mtimeNs} ${stat.ctimeNs}`;
}

async function writeFile(
	path: string,
	chunks: AsyncIterable<Uint8Array>,
	expected: WriteOptions["expected"],
	signal: AbortSignal,
): Promise<BlobInfo> {
	const verifier = new Verifier(expected);
	const file = openSync(path, "wx", 0o600);
	try {
		let batch: Uint8Array[] = [];
		let batched = 0;
		for await (const chunk of chunks) {
			checkAborted(signal);
			verifier.update(chunk);
			batch.push(chunk);
			batched += chunk.length;
			if (batched >= batchBytes) {
				writeAll(file, batch, batched);
				batch = [];
				batched = 0;
			}
		}
		checkAborted(signal);
		writeAll(file, batch, batched);
		return { digest: verifier.finish(), size: verifier.size };
	} finally {
		closeSync(file);
	}
}

/** The kernel takes 1024 parts at a time, and fewer bytes than asked for on a nearly full disk. */
function writeAll(file: number, parts: readonly Uint8Array[], bytes: number): void {
	const whole = parts.length > 1000 ? [Buffer.concat(parts)] : parts;
	let written = bytes === 0 ? 0 : writevSync(file, whole);
	while (written < bytes) {
		written += writevSync(file, [Buffer.concat(whole).subarray(written)]);
	}
}

function explain(thrown: unknown, digest: Digest | undefined): SlipwayError {
	const isFileError = findDetail(toError(thrown), "errno") !== undefined;
	return isFileError
		? wrap(thrown, `writing ${digest === undefined ? "a blob" : `blob ${digest}`}`)
		: toError(thrown);
}
