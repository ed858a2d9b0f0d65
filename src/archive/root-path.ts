import type { ByteString } from "../sys/byte-names.ts";
import { resolveInRoot as resolve } from "../sys/root-path.ts";
import { readLink, statIfAny } from "./walk.ts";

/** `resolveInRoot` of `sys/root-path.ts` for names that need not be UTF-8. */
export function resolveInRoot(root: ByteString, path: ByteString): ByteString {
	return resolve(root, path, { readLink: linkTarget });
}

function linkTarget(path: ByteString): ByteString | undefined {
	return statIfAny(path)?.isSymbolicLink() === true ? readLink(path) : undefined;
}
