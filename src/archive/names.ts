import type { ByteString } from "../sys/byte-names.ts";

/** The folder with its slash, and the name; `a` has the folder ``. */
export function splitPath(path: ByteString): readonly [folder: ByteString, name: ByteString] {
	const slash = path.lastIndexOf("/");
	return [path.slice(0, slash + 1), path.slice(slash + 1)];
}
