import { createHash, type Hash } from "node:crypto";
import { SlipwayError, toError } from "../errors/errors.ts";
import { algorithmOf, type Digest } from "../oci/digest.ts";
import type { ContentReader } from "./content.ts";

export interface Expected {
	readonly digest?: Digest;
	/** Bytes. */
	readonly size?: number;
}

/**
 * Hashes what passes and judges it: more bytes than expected fail at once, fewer or others in `finish`, both with
 * `data-loss`. The algorithm is that of the expected digest, else SHA-256.
 */
export class Verifier {
	readonly #hash: Hash;
	readonly #algorithm: string;
	readonly #expected: Expected;
	size = 0;

	constructor(expected: Expected = {}) {
		this.#expected = expected;
		this.#algorithm = expected.digest === undefined ? "sha256" : algorithmOf(expected.digest);
		this.#hash = createHash(this.#algorithm);
	}

	update(chunk: Uint8Array): void {
		this.size += chunk.length;
		const { size, digest } = this.#expected;
		if (size !== undefined && this.size > size) {
			throw new SlipwayError("data-loss", `${nameOf(digest)} is longer than the expected ${size} bytes`);
		}
		this.#hash.update(chunk);
	}

	/** May be called once. */
	finish(): Digest {
		const { size, digest } = this.#expected;
		if (size !== undefined && this.size !== size) {
			throw new SlipwayError(
				"data-loss",
				`${nameOf(digest)} ended after ${this.size} of the expected ${size} bytes`,
			);
		}
		const actual = `${this.#algorithm}:${this.#hash.digest("hex")}` as Digest;
		if (digest !== undefined && actual !== digest) {
			throw new SlipwayError("data-loss", `content has digest ${actual} instead of the expected ${digest}`);
		}
		return actual;
	}
}

function nameOf(digest: Digest | undefined): string {
	return digest === undefined ? "content" : `blob ${digest}`;
}

/** The same chunks; throws `data-loss` where they are not what is expected, at the latest after the last one. */
export async function* verified(
	chunks: AsyncIterable<Uint8Array>,
	expected: Expected,
): AsyncGenerator<Uint8Array, void> {
	const verifier = new Verifier(expected);
	for await (const chunk of chunks) {
		verifier.update(chunk);
		yield chunk;
	}
	verifier.finish();
}

/** All bytes in one array. Throws `resource-exhausted` as soon as there are more than `maxBytes`. */
export async function collect(
	chunks: AsyncIterable<Uint8Array>,
	options: { readonly maxBytes: number; readonly what: string },
): Promise<Uint8Array> {
	const parts: Uint8Array[] = [];
	let size = 0;
	for await (const chunk of chunks) {
		size += chunk.length;
		if (size > options.maxBytes) {
			throw new SlipwayError(
				"resource-exhausted",
				`${options.what} is larger than ${options.maxBytes} bytes`,
			);
		}
		parts.push(chunk);
	}
	return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts);
}

export async function* chunksOf(bytes: Uint8Array): AsyncGenerator<Uint8Array, void> {
	if (bytes.length > 0) {
		yield bytes;
	}
}

/** A whole blob that is known to be small: a manifest, a config. */
export function readBlob(
	content: Pick<ContentReader, "read">,
	digest: Digest,
	options: { readonly maxBytes: number; readonly signal: AbortSignal },
): Promise<Uint8Array> {
	return collect(content.read(digest, { signal: options.signal }), {
		maxBytes: options.maxBytes,
		what: `blob ${digest}`,
	});
}

/** Reads a blob again and tells whether it still has its digest; false also if it is not there. */
export async function verifyBlob(
	content: Pick<ContentReader, "read">,
	digest: Digest,
	options: { readonly signal: AbortSignal },
): Promise<boolean> {
	try {
		const verifier = new Verifier({ digest });
		for await (const chunk of content.read(digest, options)) {
			verifier.update(chunk);
		}
		verifier.finish();
		return true;
	} catch (thrown) {
		const { code } = toError(thrown);
		if (code === "data-loss" || code === "not-found") {
			return false;
		}
		throw thrown;
	}
}

/** The part of a blob of `size` bytes that a read asks for. Throws `out-of-range`. */
export function rangeOf(
	digest: Digest,
	size: number,
	{ offset = 0, length = Number.POSITIVE_INFINITY }: { readonly offset?: number; readonly length?: number },
): { readonly start: number; readonly end: number } {
	if (!Number.isSafeInteger(offset) || offset < 0 || offset > size || length < 0) {
		throw new SlipwayError("out-of-range", `offset ${offset} is outside of blob ${digest} of ${size} bytes`);
	}
	return { start: offset, end: Math.min(size, offset + length) };
}

export function blobNotFound(digest: Digest): SlipwayError {
	return new SlipwayError("not-found", `content ${digest}: not found`);
}

/** Ends an iterable that nobody will read; one that hangs while it ends is not waited for. */
export function discard(chunks: AsyncIterable<unknown>): void {
	void Promise.resolve(chunks[Symbol.asyncIterator]().return?.()).catch(() => {});
}

export function checkAborted(signal: AbortSignal): void {
	if (signal.aborted) {
		throw toError(signal.reason);
	}
}
