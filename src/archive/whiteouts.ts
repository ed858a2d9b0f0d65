import { SlipwayError } from "../errors/errors.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { textOf } from "../sys/byte-names.ts";

/**
 * Deletions in a layer's tar (OCI image spec, layer.md, "Whiteouts"): an empty file `.wh.name` removes `name` of the layers
 * below, `.wh..wh..opq` removes all of its folder's content of the layers below.
 */
export const whiteoutPrefix = ".wh.";
export const opaqueName = ".wh..wh..opq";

export type Whiteout =
	| { readonly kind: "opaque" }
	/** `name` is gone from the folder. */
	| { readonly kind: "removed"; readonly name: ByteString };

/** What a name in an archive stands for; `undefined` for a file. A whiteout of the folder itself or its parent is an attack. */
export function parseWhiteout(name: ByteString): Whiteout | undefined {
	if (!name.startsWith(whiteoutPrefix)) {
		return undefined;
	}
	if (name === opaqueName) {
		return { kind: "opaque" };
	}
	const removed = name.slice(whiteoutPrefix.length);
	if (removed === "" || removed === "." || removed === "..") {
		throw new SlipwayError("invalid-argument", `invalid whiteout name: ${textOf(name)}: invalid archive`);
	}
	return { kind: "removed", name: removed };
}

/** The attribute that makes a folder of an overlay's upper directory opaque; in a user namespace only `user.` can be set. */
export function opaqueAttribute(whiteouts: "overlay" | "overlay-user"): string {
	return whiteouts === "overlay" ? "trusted.overlay.opaque" : "user.overlay.opaque";
}

export const opaqueValue: Uint8Array = new TextEncoder().encode("y");
