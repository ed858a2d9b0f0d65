import type { Digest } from "../oci/digest.ts";
import { blobNotFound, checkAborted, discard, rangeOf, Verifier } from "./bytes.ts";
import type { BlobInfo, ContentStore, ReadOptions, WriteOptions } from "./content.ts";

/** A content store for tests and for small documents that nobody keeps. */
export function createMemoryContentStore(): ContentStore {
	const blobs = new Map<Digest, Uint8Array>();
	return {
		info: async (digest) => {
			const bytes = blobs.get(digest);
			return bytes === undefined ? undefined : { digest, size: bytes.length };
		},
		read: async function* (digest: Digest, options: ReadOptions) {
			checkAborted(options.signal);
			const bytes = blobs.get(digest);
			if (bytes === undefined) {
				throw blobNotFound(digest);
			}
			const { start, end } = rangeOf(digest, bytes.length, options);
			const chunkBytes = 64 * 1024;
			for (let at = start; at < end; at += chunkBytes) {
				checkAborted(options.signal);
				yield bytes.slice(at, Math.min(end, at + chunkBytes));
			}
		},
		write: async (chunks, { expected, signal }: WriteOptions): Promise<BlobInfo> => {
			checkAborted(signal);
			const known = expected?.digest === undefined ? undefined : blobs.get(expected.digest);
			if (known !== undefined && expected?.digest !== undefined) {
				discard(chunks);
				return { digest: expected.digest, size: known.length };
			}
			const verifier = new Verifier(expected);
			const parts: Uint8Array[] = [];
			for await (const chunk of chunks) {
				checkAborted(signal);
				verifier.update(chunk);
				parts.push(chunk.slice());
			}
			const digest = verifier.finish();
			blobs.set(digest, Buffer.concat(parts));
			return { digest, size: verifier.size };
		},
		delete: async (digest) => {
			blobs.delete(digest);
		},
		list: async function* () {
			for (const [digest, bytes] of [...blobs]) {
				yield { digest, size: bytes.length };
			}
		},
	};
}
