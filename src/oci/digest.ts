import { createHash, type Hash, hash } from "node:crypto";
import { SlipwayError } from "../errors/errors.ts";

declare const digestBrand: unique symbol;

/** `algorithm:encoded`, checked by `parseDigest` or made by hashing; what the OCI image spec calls a digest. */
export type Digest = string & { readonly [digestBrand]: true };

const hexLength: Readonly<Record<string, number>> = { sha256: 64, sha384: 96, sha512: 128 };

/** Parses `sha256:…`, `sha384:…` or `sha512:…` with lower-case hex of the right length. Throws `invalid-argument`. */
export function parseDigest(text: string): Digest {
	if (!isDigest(text)) {
		throw new SlipwayError("invalid-argument", `invalid digest ${JSON.stringify(text)}`);
	}
	return text;
}

export function isDigest(text: string): text is Digest {
	const colon = text.indexOf(":");
	const length = hexLength[text.slice(0, colon)];
	return (
		length !== undefined && text.length === colon + 1 + length && /^[0-9a-f]+$/.test(text.slice(colon + 1))
	);
}

/** The part after the colon. */
export function encodedOf(digest: Digest): string {
	return digest.slice(digest.indexOf(":") + 1);
}

export function algorithmOf(digest: Digest): string {
	return digest.slice(0, digest.indexOf(":"));
}

/** SHA-256 of the bytes, or of the text in UTF-8. */
export function sha256(data: Uint8Array | string): Digest {
	return `sha256:${hash("sha256", data)}` as Digest;
}

/** SHA-256 over data that comes in pieces. */
export class Digester {
	readonly #hash: Hash = createHash("sha256");
	size = 0;

	update(chunk: Uint8Array): void {
		this.#hash.update(chunk);
		this.size += chunk.length;
	}

	/** May be called once. */
	digest(): Digest {
		return `sha256:${this.#hash.digest("hex")}` as Digest;
	}
}
