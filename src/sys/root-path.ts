import { lstatSync, readlinkSync } from "node:fs";
import { SlipwayError } from "../errors/errors.ts";

/** Linux's own limit for one path. */
const maxLinks = 255;

export interface ResolveOptions {
	/** Default true. */
	readonly followLast?: boolean;
	/** What the path is a link to, if it is one; whoever has names that are not UTF-8 brings its own. */
	readonly readLink?: (path: string) => string | undefined;
}

/**
 * Where `path` leads inside of `root`, as it would after a chroot there: symbolic links on the way are followed, absolute ones and
 * `..` from `root`, so that the answer never lies outside. Parts that do not exist are kept as they are. The last part is
 * followed too unless `followLast` is false. Safe only while nobody else changes the tree. Throws `failed-precondition` (ELOOP).
 */
export function resolveInRoot(root: string, path: string, options: ResolveOptions = {}): string {
	const { followLast = true, readLink = linkTarget } = options;
	const pending = path.split("/").reverse();
	const resolved: string[] = [];
	let links = 0;
	while (pending.length > 0) {
		const part = pending.pop();
		if (part === undefined || part === "" || part === ".") {
			continue;
		}
		if (part === "..") {
			resolved.pop();
			continue;
		}
		resolved.push(part);
		const last = pending.every((rest) => rest === "" || rest === ".");
		const target = last && !followLast ? undefined : readLink(join(root, resolved));
		if (target === undefined) {
			continue;
		}
		if (++links > maxLinks) {
			throw new SlipwayError("failed-precondition", `too many symbolic links in ${JSON.stringify(path)}`, {
				details: [{ kind: "errno", errno: "ELOOP" }],
			});
		}
		resolved.pop();
		if (target.startsWith("/")) {
			resolved.length = 0;
		}
		pending.push(...target.split("/").reverse());
	}
	return join(root, resolved);
}

function join(root: string, parts: readonly string[]): string {
	return parts.length === 0 ? root : `${root === "/" ? "" : root}/${parts.join("/")}`;
}

function linkTarget(path: string): string | undefined {
	const stat = lstatSync(path, { throwIfNoEntry: false });
	return stat?.isSymbolicLink() === true ? readlinkSync(path) : undefined;
}
