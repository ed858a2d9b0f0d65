import { SlipwayError } from "../errors/errors.ts";
import { type ByteString, textOf } from "../sys/byte-names.ts";
import type { Announced } from "./announce.ts";
import { fromGoMode, toGoMode } from "./go-mode.ts";
import { fileType, typeMask } from "./tree-state.ts";

/** A folder that is in no tree. */
export function prefixDirectory(path: ByteString, modTime: bigint): Announced {
	return {
		stat: {
			path,
			mode: toGoMode(fileType.directory | 0o755),
			uid: 0,
			gid: 0,
			size: 0,
			modTime,
			linkname: "",
			devmajor: 0,
			devminor: 0,
			xattrs: new Map(),
		},
		source: undefined,
	};
}

/** A tree of several, with the name that errors have for it. */
export interface NamedTree {
	readonly id: string;
	readonly entries: Iterable<Announced>;
}

interface Head {
	readonly id: string;
	readonly rest: Iterator<Announced>;
	next: Announced;
	key: string;
}

/**
 * Several trees as one, in the order that receivers expect. A directory that two have is announced once, with what both have in it; a
 * file must be in one only.
 */
export function* mergeTrees(trees: readonly NamedTree[]): Generator<Announced, void> {
	const heads: Head[] = [];
	for (const { id, entries } of trees) {
		const rest = entries[Symbol.iterator]();
		const first = rest.next();
		if (first.done !== true) {
			heads.push({ id, rest, next: first.value, key: orderKey(first.value) });
		}
	}
	let last: { readonly key: string; readonly id: string; readonly entry: Announced } | undefined;
	for (;;) {
		const head = leastOf(heads);
		if (head === undefined) {
			return;
		}
		if (head.key !== last?.key) {
			last = { key: head.key, id: head.id, entry: head.next };
			yield head.next;
		} else if (!isDirectory(head.next) || !isDirectory(last.entry)) {
			throw new SlipwayError(
				"invalid-argument",
				`cannot overwrite ${textOf(head.next.stat.path)} from ${last.id} with ${head.id} when split option is disabled`,
			);
		}
		const following = head.rest.next();
		if (following.done === true) {
			heads.splice(heads.indexOf(head), 1);
		} else {
			head.next = following.value;
			head.key = orderKey(following.value);
		}
	}
}

function leastOf(heads: readonly Head[]): Head | undefined {
	let least = heads[0];
	for (const head of heads) {
		if (least !== undefined && head.key < least.key) {
			least = head;
		}
	}
	return least;
}

function isDirectory({ stat }: Announced): boolean {
	return ((fromGoMode(stat.mode) ?? 0) & typeMask) === fileType.directory;
}

/** Compares as fsutil compares paths: the separator comes before every byte of a name. */
function orderKey({ stat }: Announced): string {
	return stat.path.replaceAll("/", "\0");
}
