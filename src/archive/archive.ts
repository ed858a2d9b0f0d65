/**
 * Tar archives, layers and their compression: what the room offers and the data that goes in and out.
 *
 * A layer is a tar of changes against the layers below it (OCI image spec, layer.md). Deletions are entries named
 * `.wh.<name>` and `.wh..wh..opq` in the tar, and device nodes 0/0 and an attribute in an overlay directory.
 *
 * The bytes of a layer are the ones that BuildKit makes from the same files: same order, same headers, so that the
 * uncompressed digest (diff ID) is equal. Compressed bytes depend on the compressor and are ours, but the same input
 * gives the same bytes on every machine, whatever the number of its threads.
 *
 * Every file is read once: hashed, compressed, hashed again and written in the same pass, in a worker thread. Nothing is
 * left behind by a failure or an abort but what `extract` had written to its root, which its owner throws away.
 *
 * File names are bytes. Inside the room they are *byte strings*: JavaScript strings of one character per byte
 * (`sys/byte-names.ts`); requests name folders of the host in normal text.
 */

import type { SlipwayError } from "../errors/errors.ts";
import type { ByteString } from "../sys/byte-names.ts";
import type { Timestamp } from "../sys/sys.ts";

/** An OCI digest by SHA-256; callers brand it with `parseDigest`. */
export type Sha256 = `sha256:${string}`;

export type CompressionKind = "uncompressed" | "gzip" | "zstd";

export interface CompressionOptions {
	/** `estargz` is gzip with a table of contents (estargz.ts), and is read as gzip. */
	readonly kind: CompressionKind | "estargz";
	/** Default 6 for gzip and eStargz (0 to 9) and 3 for zstd (1 to 22). */
	readonly level?: number;
}

export type TarEntryKind =
	| "file"
	| "hardlink"
	| "symlink"
	| "character-device"
	| "block-device"
	| "directory"
	| "fifo"
	/** PAX records for all that follows; carries no file. */
	| "global";

export type TarFormat = "unknown" | "ustar" | "pax" | "gnu";

/** One entry of a tar archive, as Go's archive/tar has it, because what Go writes is what digests are made of. */
export interface TarHeader {
	readonly kind: TarEntryKind;
	readonly name: ByteString;
	/** Target of a link, else empty. */
	readonly linkName: ByteString;
	/** Bytes of content that follow; 0 for everything but files. */
	readonly size: number;
	/** Permissions with setuid, setgid and sticky; other bits are kept as found. */
	readonly mode: number;
	readonly uid: number;
	readonly gid: number;
	readonly userName: ByteString;
	readonly groupName: ByteString;
	readonly modified: Timestamp;
	readonly accessed: Timestamp | undefined;
	readonly changed: Timestamp | undefined;
	readonly deviceMajor: number;
	readonly deviceMinor: number;
	/** PAX records, values as bytes: `SCHILY.xattr.user.x` and others. */
	readonly records: ReadonlyMap<ByteString, ByteString>;
	/** Reading: the best guess. Writing: what must be used; `unknown` picks the smallest that can say everything. */
	readonly format: TarFormat;
}

/** A blob and the tar in it, both digests taken in one pass. */
export interface LayerBlob {
	readonly compression: CompressionKind;
	/** Of the bytes as they are, compressed. */
	readonly digest: Sha256;
	readonly size: number;
	/** Of the tar; of eStargz with its table of contents. */
	readonly diffId: Sha256;
	readonly uncompressedSize: number;
	readonly entries: number;
	/** Of what was written as eStargz. */
	readonly toc?: {
		readonly digest: Sha256;
		/** The diff ID of the same layer in other compressions. */
		readonly plainDiffId: Sha256;
	};
	/** Folders relative to the root, which is the empty name, each after those above it; only with `reportOrphans`. */
	readonly orphans?: readonly ByteString[];
}

/** One change to a tree; `path` is absolute within it, without a trailing slash. `unmodified` is for other names of a file. */
export interface Change {
	readonly kind: "add" | "modify" | "delete" | "unmodified";
	readonly path: ByteString;
}

export type LayerSource =
	/**
	 * The upper directory of an overlay. `base` is where the layers below are mounted together (or the only one's
	 * directory); absent for the bottommost layer.
	 */
	| { readonly kind: "overlay"; readonly upper: string; readonly base?: string }
	/** Two full trees, compared; without `base`, everything in `target`. */
	| { readonly kind: "diff"; readonly target: string; readonly base?: string }
	/** A list made elsewhere, in the order of the walk. */
	| { readonly kind: "changes"; readonly root: string; readonly changes: readonly Change[] };

export interface WriteLayerRequest {
	readonly source: LayerSource;
	/** The file to write. It must not exist; it is removed again on failure. Synced to disk before the answer. */
	readonly dest: string;
	readonly compression: CompressionOptions;
	/** No entry is younger: later times become this one (SOURCE_DATE_EPOCH), in seconds. */
	readonly maxModifiedSeconds?: number;
}

export type ByteSource =
	| { readonly kind: "file"; readonly path: string }
	| { readonly kind: "stream"; readonly chunks: AsyncIterable<Uint8Array> };

/** What the bytes must turn out to be; a difference is `data-loss`. */
export interface ExpectedLayer {
	readonly digest?: string;
	readonly size?: number;
	readonly diffId?: string;
}

/** Bounds for what a hostile archive can cost; passing one is `resource-exhausted`. Default: none. */
export interface ExtractLimits {
	/** Of file contents together. */
	readonly maxBytes?: number;
	readonly maxEntries?: number;
}

export interface ExtractLayerRequest {
	readonly source: ByteSource;
	/** The directory to fill; it exists. No entry leaves it, whatever names and links the archive has. */
	readonly root: string;
	/**
	 * `overlay`: device nodes and `trusted.overlay.opaque`; `overlay-user`: the same with `user.overlay.opaque`, for a
	 * user namespace; `apply`: files are removed from `root`, which holds the layers below.
	 */
	readonly whiteouts: "overlay" | "overlay-user" | "apply";
	/** Directories of the layers below, uppermost first: where a missing parent gets its owner, mode, times and attributes from. */
	readonly parents?: readonly string[];
	/**
	 * Answer with the missing parents that were made (`orphans`) instead of looking for them in `parents`, which are perhaps
	 * still being unpacked by others; `adoptOrphans` in extract-tree.ts does it later. Default false.
	 */
	readonly reportOrphans?: boolean;
	readonly expected?: ExpectedLayer;
	readonly limits?: ExtractLimits;
	/** Leave every file to the caller's user and group. Default false. */
	readonly ignoreOwners?: boolean;
}

export interface FetchLayerRequest extends Omit<ExtractLayerRequest, "source"> {
	readonly chunks: AsyncIterable<Uint8Array>;
	/** The blob's own bytes go to this new file; the caller takes it over, or removes it after an error. */
	readonly keepAt: string;
	readonly expected: ExpectedLayer & { readonly digest: string; readonly size: number };
}

/** A blob that is in its file whole and verified; its files may have failed even so. */
export type FetchedLayer =
	| { readonly kind: "unpacked"; readonly layer: LayerBlob }
	| { readonly kind: "kept"; readonly failure: SlipwayError };

export interface ConvertLayerRequest {
	readonly source: ByteSource;
	readonly dest: string;
	readonly compression: CompressionOptions;
	readonly expected?: ExpectedLayer;
	/** Rewrites the headers with no time later than this one. Absent: the tar's bytes stay as they are. */
	readonly maxModifiedSeconds?: number;
}

/** ADD of a local archive. */
export interface UnpackRequest {
	/** The archive: a regular file of the host, never followed if it is a link. */
	readonly path: string;
	/** The directory to unpack into; it exists and has no links in its path. To the archive it is the root of the machine. */
	readonly dest: string;
	/** Every entry's owner; absent: what the archive says. */
	readonly owner?: { readonly uid: number; readonly gid: number };
	readonly limits?: ExtractLimits;
}

/**
 * A part of a tar stream. `prefix` is a folder that the names of a tree are put in, as in `linux_amd64`; its own entry is a part of kind
 * `directory` before.
 */
export type TarPart =
	| {
			readonly kind: "tree";
			readonly root: string;
			readonly prefix?: string;
			readonly modifiedSeconds?: number;
	  }
	| {
			readonly kind: "file";
			readonly name: string;
			readonly data: Uint8Array;
			readonly mode: number;
			readonly modifiedSeconds: number;
	  }
	| {
			readonly kind: "directory";
			readonly name: string;
			readonly mode: number;
			readonly modifiedSeconds: number;
	  };

/** Whatever waits can be aborted. */
export interface ArchiveOptions {
	readonly signal: AbortSignal;
}

/** Everything here runs in worker threads (`createArchiver` in `archiver.ts`). */
export interface Archiver {
	/** A layer of a directory's changes: tar, digest, compress, digest, file. */
	writeLayer(request: WriteLayerRequest, options: ArchiveOptions): Promise<LayerBlob>;
	/** A layer's bytes, compressed or not, into a directory; answers with what the bytes were. */
	extractLayer(request: ExtractLayerRequest, options: ArchiveOptions): Promise<LayerBlob>;
	/**
	 * Both at once for a blob that comes from far away: its bytes are hashed, kept and unpacked as they arrive. Throws if they are not
	 * what was expected.
	 */
	fetchLayer(request: FetchLayerRequest, options: ArchiveOptions): Promise<FetchedLayer>;
	/** A layer with another compression or with bounded times. The table of contents of an eStargz layer in a file is left out. */
	convertLayer(request: ConvertLayerRequest, options: ArchiveOptions): Promise<LayerBlob>;
	/** True for a regular file that ADD unpacks: a tar, plain or compressed with gzip, zstd, bzip2 or xz. */
	isArchive(path: string, options: ArchiveOptions): Promise<boolean>;
	unpack(request: UnpackRequest, options: ArchiveOptions): Promise<void>;
	/** One tar of trees and files in the form of the `tar` exporter, closed with its two empty blocks. */
	tar(parts: readonly TarPart[], options: ArchiveOptions): AsyncIterable<Uint8Array>;
}
