import { SlipwayError } from "../errors/errors.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { textOf } from "../sys/byte-names.ts";
import { readLink, statIfAny } from "./walk.ts";

/** Links followed for one path at most; more are a loop. */
const maxLinks = 255;

/**
 * Where a path of a tree is in it, as if the tree were the root of the machine: absolute links start at `root`, `..` does not
 * leave it. The answer has no links in it, begins with `root` and need not exist. Safe only while nobody else changes
 * the tree.
 */
export function resolveInRoot(root: ByteString, path: ByteString): ByteString {
	const rest = path.split("/").reverse();
	const resolved: ByteString[] = [];
	let links = 0;
	for (let part = rest.pop(); part !== undefined; part = rest.pop()) {
		if (part === "" || part === ".") {
			continue;
		}
		if (part === "..") {
			resolved.pop();
			continue;
		}
		const at = `${root}/${[...resolved, part].join("/")}`;
		if (statIfAny(at)?.isSymbolicLink() !== true) {
			resolved.push(part);
			continue;
		}
		if (++links > maxLinks) {
			throw new SlipwayError("invalid-argument", `too many links in ${JSON.stringify(textOf(path))}`);
		}
		const target = readLink(at);
		if (target.startsWith("/")) {
			resolved.length = 0;
		}
		rest.push(...target.split("/").reverse());
	}
	return resolved.length === 0 ? root : `${root}/${resolved.join("/")}`;
}
