import { createHash, type Hash } from "node:crypto";
import { fstatSync } from "node:fs";
import { listXattrs } from "../sys/xattr.ts";
import type { HashedFile } from "./receive.job.ts";

interface Running {
	readonly hash: Hash;
	/** Bytes of the file that are in it. */
	bytes: number;
}

/**
 * Digests of files that arrive piece by piece, in the thread that writes them. A transfer may go on in another thread, and some
 * never end; so nothing here is relied on: of a file that was not seen here from its first byte to its last there is no
 * digest, and whoever wants it reads the file.
 */
const running = new Map<string, Running>();
/** Of all transfers in this thread; the oldest go first. A client sends four files at a time. */
const maxRunning = 64;

/** A piece was written at the offset. */
export function hashPiece(key: string, file: HashedFile, offset: number, data: Uint8Array): void {
	let state = running.get(key);
	if (offset === 0 && state === undefined) {
		state = { hash: createHash("sha256").update(file.header), bytes: 0 };
		const [oldest] = running.keys();
		if (running.size >= maxRunning && oldest !== undefined) {
			running.delete(oldest);
		}
		running.set(key, state);
	}
	if (state?.bytes !== offset) {
		running.delete(key);
		return;
	}
	state.hash.update(data);
	state.bytes += data.length;
}

/** The file is finished: its digest in hex, if that is what a later reader of the file will find. */
export function hashEnd(key: string, file: HashedFile, fd: number): string | undefined {
	const state = running.get(key);
	running.delete(key);
	if (state?.bytes !== file.size) {
		return undefined;
	}
	const { mode, uid, gid, size } = fstatSync(fd);
	const isAsSaid =
		(mode & 0o7777) === file.mode && uid === file.uid && gid === file.gid && size === file.size;
	return isAsSaid && listXattrs(`/proc/self/fd/${fd}`).length === 0 ? state.hash.digest("hex") : undefined;
}
