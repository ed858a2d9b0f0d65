import { hash } from "node:crypto";
import { sortedKeys } from "../oci/go-json.ts";
import type { CacheOptions } from "./remotecache.ts";

/** Equal for entries that mean the same place; shown for imports. */
export function nameOf({ type, attrs }: CacheOptions): string {
	const { ref } = attrs;
	if (type === "registry" && ref !== undefined && ref !== "") {
		return ref;
	}
	const text = sortedKeys(attrs).map((key) => `${key}=${attrs[key]}`);
	return `${type}:${BigInt(`0x${hash("sha256", text.join("\n")).slice(0, 16)}`)}`;
}
