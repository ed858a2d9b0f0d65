import { createHash } from "node:crypto";
import { SlipwayError, toError } from "../errors/errors.ts";
import type { FetchedLayer, FetchLayerRequest } from "./archive.ts";
import { type Control, extractLayer } from "./layer.ts";

/**
 * Unpacks a blob while it arrives. Its bytes are judged by their digest at the end, whatever became of the unpacking, which may fail
 * for reasons of its own.
 */
export async function fetchLayer(
	{ expected, ...request }: Omit<FetchLayerRequest, "chunks" | "keepAt">,
	chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
	control: Control,
): Promise<FetchedLayer> {
	const arriving = new Arriving(chunks, expected, control);
	try {
		let outcome: FetchedLayer;
		try {
			// Digest and size are judged here.
			const { diffId } = expected;
			const layer = await extractLayer(
				{ ...request, expected: diffId === undefined ? {} : { diffId } },
				arriving.chunks(),
				control,
				true,
			);
			outcome = { kind: "unpacked", layer };
		} catch (thrown) {
			if (arriving.failure !== undefined) {
				throw arriving.failure;
			}
			outcome = { kind: "kept", failure: toError(thrown) };
		}
		// What the unpacking did not look at: padding, or everything behind its failure.
		for await (const _ of arriving.chunks()) {
		}
		arriving.finish();
		if (outcome.kind === "kept") {
			return outcome;
		}
		const { digest, size } = expected;
		return { kind: "unpacked", layer: { ...outcome.layer, digest: digest as `sha256:${string}`, size } };
	} catch (thrown) {
		throw control.signal.aborted ? toError(control.signal.reason) : toError(thrown);
	} finally {
		arriving.close();
	}
}

/** The blob's bytes on their way, hashed. Whoever stops reading leaves the rest to the next reader. */
class Arriving {
	readonly #iterator: AsyncIterator<Uint8Array> | Iterator<Uint8Array>;
	readonly #expected: FetchLayerRequest["expected"];
	readonly #control: Control;
	readonly #hash;
	#size = 0;
	#ended = false;
	/** Of the source. */
	failure: SlipwayError | undefined;

	constructor(
		chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
		expected: FetchLayerRequest["expected"],
		control: Control,
	) {
		this.#iterator =
			Symbol.asyncIterator in chunks ? chunks[Symbol.asyncIterator]() : chunks[Symbol.iterator]();
		this.#expected = expected;
		this.#control = control;
		this.#hash = createHash(expected.digest.slice(0, expected.digest.indexOf(":")));
	}

	async *chunks(): AsyncGenerator<Uint8Array, void> {
		try {
			while (!this.#ended) {
				this.#control.throwIfAborted();
				const next = await this.#iterator.next();
				if (next.done === true) {
					this.#ended = true;
					return;
				}
				this.#take(next.value);
				yield next.value;
			}
		} catch (thrown) {
			this.failure = toError(thrown);
			throw thrown;
		}
	}

	#take(chunk: Uint8Array): void {
		const { digest, size } = this.#expected;
		this.#size += chunk.length;
		if (this.#size > size) {
			throw new SlipwayError("data-loss", `blob ${digest} is longer than the expected ${size} bytes`);
		}
		this.#hash.update(chunk);
	}

	/** Tells the source that nobody reads it any more. */
	close(): void {
		if (!this.#ended) {
			this.#ended = true;
			void Promise.resolve(this.#iterator.return?.()).catch(() => {});
		}
	}

	finish(): void {
		const { digest, size } = this.#expected;
		if (this.#size !== size) {
			throw new SlipwayError(
				"data-loss",
				`blob ${digest} ended after ${this.#size} of the expected ${size} bytes`,
			);
		}
		const actual = `${digest.slice(0, digest.indexOf(":"))}:${this.#hash.digest("hex")}`;
		if (actual !== digest) {
			throw new SlipwayError("data-loss", `content has digest ${actual} instead of the expected ${digest}`);
		}
	}
}
