import {
	chmodSync,
	closeSync,
	constants,
	fchmodSync,
	linkSync,
	lstatSync,
	mkdirSync,
	openSync,
	renameSync,
	symlinkSync,
	writeSync,
} from "node:fs";
import { findDetail, hasCode, type SlipwayError, toError, wrap } from "../errors/errors.ts";
import { type ByteString, textOf } from "../sys/byte-names.ts";
import { makeNode, setTimes } from "../sys/node.ts";
import { listXattrs, removeXattr, setXattr } from "../sys/xattr.ts";
import { isImageAttribute } from "./image-attributes.ts";
import type { Metadata, ReceiveBatch, ReceivedDigests, WriteOperation } from "./receive.job.ts";
import { hashEnd, hashPiece } from "./receive-hash.ts";
import { openTargetTree, type TargetTree } from "./target-tree.ts";

const newFile = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
const knownFile = constants.O_WRONLY | constants.O_NOFOLLOW;

/** Does a batch, blocking the thread. Names are looked up in open directories: nothing outside of the target is reached. */
export function writeReceived(batch: ReceiveBatch): ReceivedDigests {
	using target = openTargetTree(batch.target);
	using writer = new BatchWriter(batch, target);
	for (const operation of batch.operations) {
		try {
			writer.do(operation);
		} catch (thrown) {
			throw describe(thrown, operation.path);
		}
	}
	return writer.digests;
}

type Content = Extract<WriteOperation, { kind: "content" }>;

class BatchWriter implements Disposable {
	readonly digests: [id: number, digest: string][] = [];
	readonly #batch: ReceiveBatch;
	readonly #target: TargetTree;
	/** Files of this batch that are not finished yet. */
	readonly #open = new Map<number, number>();
	/** A file that is made with this mode has it. */
	readonly #umask: number = process.umask();

	constructor(batch: ReceiveBatch, target: TargetTree) {
		this.#batch = batch;
		this.#target = target;
	}

	do(operation: WriteOperation): void {
		const { path } = operation;
		switch (operation.kind) {
			case "remove":
				this.#target.remove(path);
				return;
			case "directory":
				this.#directory(path);
				return;
			case "symlink":
				this.#place(path, (at) => {
					symlinkSync(Buffer.from(operation.to, "latin1"), at);
					this.#describe(at, operation.metadata, true);
				});
				return;
			case "node":
				this.#place(path, (at) => {
					makeNode(at, operation.node, 0o600, operation.node === "fifo" ? 0 : operation.device);
					// A name that was just made, in a directory that is held open: there is no link to follow.
					chmodSync(at, operation.metadata.mode);
					this.#describe(at, operation.metadata, false);
				});
				return;
			case "content":
				this.#content(operation);
				return;
			case "link":
				this.#link(path, operation.to);
				return;
			case "finish":
				this.#finish(path, operation.metadata, operation.isNew);
				return;
		}
	}

	[Symbol.dispose](): void {
		for (const fd of this.#open.values()) {
			closeSync(fd);
		}
	}

	#directory(path: ByteString): void {
		try {
			mkdirSync(this.#target.at(path), 0o700);
		} catch (thrown) {
			if (!hasCode(toError(thrown), "already-exists")) {
				throw thrown;
			}
			if (this.#batch.place.kind === "replace" && lstatSync(this.#target.at(path)).isDirectory()) {
				return;
			}
			this.#target.remove(path);
			mkdirSync(this.#target.at(path), 0o700);
		}
	}

	/** Makes an entry. In a user's directory it takes the place of what has its name in one step. */
	#place(path: ByteString, make: (at: string | Buffer) => void): void {
		if (this.#batch.place.kind === "copy") {
			this.#create(path, make);
			return;
		}
		const temporary = this.#temporary(path, "entry");
		this.#create(temporary, make);
		this.#rename(temporary, path);
	}

	/** What is in the way was put there by nobody that the plan knows of; it goes. */
	#create(path: ByteString, make: (at: string | Buffer) => void): void {
		try {
			make(this.#target.at(path));
		} catch (thrown) {
			if (!hasCode(toError(thrown), "already-exists")) {
				throw thrown;
			}
			this.#target.remove(path);
			make(this.#target.at(path));
		}
	}

	#content(piece: Content): void {
		const { path, id, first, metadata, length } = piece;
		const isCopy = this.#batch.place.kind === "copy";
		const at = isCopy ? path : this.#temporary(path, id);
		const whole = first && metadata !== undefined;
		const mode = whole && (metadata.mode & ~0o777) === 0 ? metadata.mode : 0o600;
		let fd = this.#open.get(id) ?? -1;
		if (fd === -1) {
			if (first) {
				this.#create(at, (name) => {
					fd = openSync(name, newFile, mode);
				});
			} else {
				fd = openSync(this.#target.at(at), knownFile);
			}
			this.#open.set(id, fd);
		}
		for (let done = 0; done < length; ) {
			done += writeSync(fd, this.#batch.block, piece.start + done, length - done, piece.offset + done);
		}
		const { hashed } = piece;
		const key = `${this.#batch.transfer} ${id}`;
		if (hashed !== undefined) {
			hashPiece(key, hashed, piece.offset, this.#batch.block.subarray(piece.start, piece.start + length));
		}
		if (metadata === undefined) {
			return;
		}
		if (!whole || mode !== metadata.mode || (mode & this.#umask) !== 0) {
			fchmodSync(fd, metadata.mode);
		}
		this.#describe(this.#target.at(at), metadata, false);
		const digest = hashed === undefined ? undefined : hashEnd(key, hashed, fd);
		if (digest !== undefined) {
			this.digests.push([id, digest]);
		}
		this.#open.delete(id);
		closeSync(fd);
		if (!isCopy) {
			this.#rename(at, path);
		}
	}

	#rename(temporary: ByteString, path: ByteString): void {
		try {
			if (lstatSync(this.#target.at(path), { throwIfNoEntry: false })?.isDirectory() === true) {
				this.#target.remove(path);
			}
			const from = this.#target.at(temporary);
			renameSync(from, this.#target.at(path));
		} catch (thrown) {
			this.#target.remove(temporary);
			throw thrown;
		}
	}

	/** Two names of one file are in two directories: both must be open. */
	#link(path: ByteString, to: ByteString): void {
		using first = openTargetTree(this.#batch.target);
		const from = first.at(to);
		try {
			this.#place(path, (at) => linkSync(from, at));
			if (this.#batch.place.kind === "replace") {
				// Renaming one name of a file to another of the same file does nothing.
				this.#target.remove(this.#temporary(path, "entry"));
			}
		} catch (thrown) {
			const errno = findDetail(toError(thrown), "errno")?.errno;
			if (errno === "EMLINK") {
				throw wrap(thrown, "it has as many names as a file can have");
			}
			throw thrown;
		}
	}

	#finish(path: ByteString, metadata: Metadata, isNew: boolean): void {
		const fd = this.#target.directory(path);
		fchmodSync(fd, metadata.mode);
		const at = `/proc/self/fd/${fd}/.`;
		if (!isNew && this.#batch.place.kind === "copy") {
			for (const name of listXattrs(at)) {
				if (isImageAttribute(name) && metadata.xattrs?.has(name) !== true) {
					removeXattr(at, name);
				}
			}
		}
		this.#describe(at, metadata, false);
	}

	/** Attributes, then times. A symbolic link has no attributes that matter. */
	#describe(at: string | Buffer, { xattrs, modified }: Metadata, isSymlink: boolean): void {
		for (const [name, value] of isSymlink ? [] : (xattrs ?? [])) {
			if (this.#batch.place.kind === "replace" ? isUserAttribute(name) : isImageAttribute(name)) {
				this.#setAttribute(at, name, value);
			}
		}
		setTimes(at, modified, modified);
	}

	/** Where the file system has no attributes, or this user may not set one, files arrive without; BuildKit does the same. */
	#setAttribute(at: string | Buffer, name: string, value: Uint8Array): void {
		try {
			setXattr(at, name, value);
		} catch (thrown) {
			const errno = findDetail(toError(thrown), "errno")?.errno;
			if (
				this.#batch.place.kind === "copy" &&
				errno !== "ENOTSUP" &&
				errno !== "EOPNOTSUPP" &&
				errno !== "EPERM"
			) {
				throw thrown;
			}
		}
	}

	#temporary(path: ByteString, id: number | string): ByteString {
		const { place } = this.#batch;
		const folder = path.slice(0, path.lastIndexOf("/") + 1);
		return `${folder}.tmp.${place.kind === "replace" ? place.unique : ""}.${id}`;
	}
}

/** What an overlay file system keeps in attributes is not for others. */
function isUserAttribute(name: string): boolean {
	return !name.startsWith("trusted.overlay.") && !name.startsWith("user.overlay.");
}

function describe(thrown: unknown, path: ByteString): SlipwayError {
	return wrap(thrown, `could not write ${JSON.stringify(textOf(path))}`);
}
