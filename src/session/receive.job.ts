import type { ByteString } from "../sys/byte-names.ts";
import type { Timestamp } from "../sys/sys.ts";
import { writeReceived } from "./receive-write.ts";

/** Mode without type, time and attributes of an entry, as its sender gave them. */
export interface Metadata {
	readonly mode: number;
	readonly modified: Timestamp;
	readonly xattrs?: ReadonlyMap<string, Uint8Array>;
}

/** A piece of a transfer that a thread writes. They are done in their order. */
export type WriteOperation =
	| { readonly kind: "remove"; readonly path: ByteString }
	| { readonly kind: "directory"; readonly path: ByteString }
	| {
			readonly kind: "symlink";
			readonly path: ByteString;
			readonly to: ByteString;
			readonly metadata: Metadata;
	  }
	| {
			readonly kind: "node";
			readonly path: ByteString;
			readonly node: "fifo" | "block" | "character";
			readonly device: number;
			readonly metadata: Metadata;
	  }
	| {
			readonly kind: "content";
			readonly path: ByteString;
			/** Tells files apart, and names those that are not whole yet. */
			readonly id: number;
			/** Where in the file, and where in the block. */
			readonly offset: number;
			readonly start: number;
			readonly length: number;
			readonly first: boolean;
			/** Given with the last piece: the file is finished with it. */
			readonly metadata: Metadata | undefined;
			/** Given with each piece of a file that is to be hashed. */
			readonly hashed?: HashedFile;
	  }
	| { readonly kind: "link"; readonly path: ByteString; readonly to: ByteString }
	/** A directory whose contents are complete. */
	| {
			readonly kind: "finish";
			readonly path: ByteString;
			readonly metadata: Metadata;
			readonly isNew: boolean;
	  };

/** A file whose digest is wanted. */
export interface HashedFile {
	/** In front of the data. */
	readonly header: Uint8Array;
	/** What the header says of the file; if it is otherwise in the end, the header is wrong. */
	readonly mode: number;
	readonly uid: number;
	readonly gid: number;
	readonly size: number;
}

export interface ReceiveBatch {
	/** Tells transfers apart. */
	readonly transfer: number;
	readonly target: string;
	/** Contents, which the operations point into. */
	readonly block: Uint8Array;
	readonly operations: readonly WriteOperation[];
	readonly place: ReceivePlace;
}

/**
 * `copy`: the target is a copy of the builder's own; what is in the way goes, and attributes that mean something in an image are kept.
 * `replace`: the target is a directory of the user, where others read meanwhile: files appear whole, directories are filled.
 */
export type ReceivePlace =
	| { readonly kind: "copy" }
	/** `unique` is in temporary names. */
	| { readonly kind: "replace"; readonly unique: string };

/** Of files that the batch finishes: number, and digest in hex. */
export type ReceivedDigests = readonly (readonly [id: number, digest: string])[];

export function run(batch: ReceiveBatch): ReceivedDigests {
	return writeReceived(batch);
}
