import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";

/**
 * Blobs by the digest of their bytes. A blob that can be read is whole and was verified when it was written; what is
 * under way is not visible. Reading does not verify again: who suspects damage uses `verify`.
 */
export interface ContentReader {
	info(digest: Digest): Promise<BlobInfo | undefined>;
	/** Throws `not-found` when the blob is not there, before the first chunk. */
	read(digest: Digest, options: ReadOptions): AsyncIterable<Uint8Array>;
}

export interface ReadOptions {
	/** First byte; default 0. */
	readonly offset?: number;
	/** Number of bytes at most; default all. */
	readonly length?: number;
	/** A chunk need not outlive a few more: its memory may be used again, which saves clearing fresh pages. Default false. */
	readonly reuse?: boolean;
	readonly signal: AbortSignal;
}

export interface BlobInfo {
	readonly digest: Digest;
	/** Bytes. */
	readonly size: number;
}

export interface ContentStore extends ContentReader {
	/**
	 * Writes a blob from its chunks, which the source must not change afterwards. `expected` is judged at the end (and `size` while writing, so that a peer can't
	 * send without end): a difference throws `data-loss` and leaves nothing. A blob that is there already is not
	 * written again. Concurrent writes of the same digest are allowed; one of them stays.
	 */
	write(chunks: AsyncIterable<Uint8Array>, options: WriteOptions): Promise<BlobInfo>;
	/** Removes a blob if it is there. */
	delete(digest: Digest): Promise<void>;
	list(): AsyncIterable<BlobInfo>;
}

export interface WriteOptions {
	readonly expected?: { readonly digest?: Digest; readonly size?: number };
	readonly signal: AbortSignal;
}

/** The ability of a store on disk: worker threads read and write its files themselves. */
export interface LocalContent {
	/** The file of a blob that is there. */
	path(digest: Digest): string;
	/** A name for a new file on the same file system, for `adopt`; swept at the next start if nobody adopts it. */
	temporaryPath(): string;
	/** Takes over a finished file whose digest and size the caller computed while writing. */
	adopt(file: string, info: BlobInfo): Promise<void>;
	/**
	 * True if this process knows that the blob's bytes have its digest (it wrote them, or `confirmation` was called) and the file was
	 * not touched since, by inode, size and times: who would hash a gigabyte to find damage need not.
	 */
	isConfirmed(digest: Digest): boolean;
	/** To be taken before the blob is read; calling it says that the bytes were right. */
	confirmation(digest: Digest): () => void;
}

/**
 * Where the bytes of a descriptor can be had, perhaps from far away. Exactly `size` bytes or an error; whether they have the digest is
 * for the reader to find out, who hashes what he writes or unpacks anyway.
 */
export interface ContentProvider {
	read(descriptor: Descriptor, options: ReadOptions): AsyncIterable<Uint8Array>;
}
