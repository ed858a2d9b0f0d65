import { closeSync, constants, openSync, readSync } from "node:fs";
import { SlipwayError, wrap } from "../errors/errors.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { fsPath, textOf } from "../sys/byte-names.ts";
import type { TarHeader } from "./archive.ts";
import { paddingOf } from "./tar-format.ts";
import { encodeHeader, endOfArchive } from "./tar-writer.ts";

/** An entry to be written: its content is a file's, or given, or there is none. */
export interface TarItem {
	readonly header: TarHeader;
	readonly content?: { readonly path: ByteString } | { readonly bytes: Uint8Array };
}

/** The unit in which a tar is hashed and compressed. Never change it: compressed bytes depend on it. */
export const packBytes: number = 1 << 20;

/** Buffers of one size that are used again: fresh ones cost a page fault for each of their pages. */
export class BlockPool {
	readonly #free: Buffer[] = [];

	take(): Buffer {
		return this.#free.pop() ?? Buffer.allocUnsafeSlow(packBytes);
	}

	give(block: Uint8Array): void {
		if (block.buffer.byteLength === packBytes) {
			this.#free.push(Buffer.from(block.buffer));
		}
	}
}

/**
 * The tar of the items in blocks of `packBytes`, but for the last. Files are read straight into the blocks. Whoever takes a
 * block owns it, and gives it back to the pool when done.
 */
export function* pack(
	items: Iterable<TarItem>,
	pool: BlockPool,
	throwIfAborted: () => void,
): Generator<Uint8Array> {
	let block = pool.take();
	let filled = 0;
	/** What a call makes room for is full blocks only, so callers yield what it returns. */
	function* put(bytes: Uint8Array): Generator<Uint8Array> {
		for (let at = 0; at < bytes.length; ) {
			const length = Math.min(bytes.length - at, packBytes - filled);
			block.set(at === 0 && length === bytes.length ? bytes : bytes.subarray(at, at + length), filled);
			at += length;
			filled += length;
			if (filled === packBytes) {
				yield block;
				block = pool.take();
				filled = 0;
			}
		}
	}
	for (const { header, content } of items) {
		throwIfAborted();
		yield* put(encodeHeader(header));
		if (content === undefined || header.size === 0) {
			continue;
		}
		if ("bytes" in content) {
			yield* put(content.bytes);
		} else {
			const fd = attempt(content.path, () =>
				openSync(fsPath(content.path), constants.O_RDONLY | constants.O_NOFOLLOW),
			);
			try {
				for (let left = header.size; left > 0; ) {
					const got = attempt(content.path, () =>
						readSync(fd, block, filled, Math.min(left, packBytes - filled), null),
					);
					if (got === 0) {
						throw new SlipwayError(
							"aborted",
							`read ${textOf(content.path)}: file shrank by ${left} of ${header.size} bytes while it was archived`,
						);
					}
					left -= got;
					filled += got;
					if (filled === packBytes) {
						throwIfAborted();
						yield block;
						block = pool.take();
						filled = 0;
					}
				}
			} finally {
				closeSync(fd);
			}
		}
		const padding = paddingOf(header.size);
		if (padding > 0) {
			yield* put(zeros.subarray(0, padding));
		}
	}
	yield* put(endOfArchive);
	if (filled > 0) {
		yield block.subarray(0, filled);
	}
}

const zeros = new Uint8Array(512);

function attempt<T>(path: ByteString, action: () => T): T {
	try {
		return action();
	} catch (thrown) {
		throw wrap(thrown, `read ${textOf(path)}`);
	}
}
