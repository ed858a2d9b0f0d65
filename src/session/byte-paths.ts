import type { ByteString } from "../sys/byte-names.ts";

export function joinBytes(directory: ByteString, name: ByteString): ByteString {
	return directory === "" ? name : `${directory}/${name}`;
}

/** The folder (empty for the root) and the name. */
export function splitBytes(path: ByteString): readonly [folder: ByteString, name: ByteString] {
	const slash = path.lastIndexOf("/");
	return slash === -1 ? ["", path] : [path.slice(0, slash), path.slice(slash + 1)];
}
