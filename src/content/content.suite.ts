import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { hasCode, SlipwayError } from "../errors/errors.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import { chunksOf, collect, readBlob, verifyBlob } from "./bytes.ts";
import type { ContentStore } from "./content.ts";

/** What every content store does. `use` makes one, hands it to the test and removes it. */
export function contentStoreSuite(
	name: string,
	use: (test: (store: ContentStore) => Promise<void>) => Promise<void>,
): void {
	const signal = new AbortController().signal;
	const check = (title: string, body: (store: ContentStore) => Promise<void>): void => {
		test(title, () => use(body));
	};
	const text = (value: string): Uint8Array => new TextEncoder().encode(value);
	const hello = text("hello, world");
	const digest = sha256(hello);
	const code = (expected: Parameters<typeof hasCode>[1]) => (thrown: unknown) => hasCode(thrown, expected);
	const listed = async (store: ContentStore): Promise<readonly Digest[]> => {
		const all: Digest[] = [];
		for await (const info of store.list()) {
			all.push(info.digest);
		}
		return all.sort();
	};

	describe(`content store: ${name}`, () => {
		check("write gives digest and size, and the blob can be read", async (store) => {
			assert.deepEqual(await store.write(chunksOf(hello), { signal }), { digest, size: hello.length });
			assert.deepEqual(await store.info(digest), { digest, size: hello.length });
			assert.equal(
				Buffer.from(await readBlob(store, digest, { maxBytes: 100, signal })).toString(),
				"hello, world",
			);
			assert.deepEqual(await listed(store), [digest]);
		});

		check("write of nothing is the empty blob", async (store) => {
			const empty = await store.write(chunksOf(new Uint8Array()), { expected: { size: 0 }, signal });
			assert.deepEqual(empty, { digest: sha256(""), size: 0 });
			assert.equal((await readBlob(store, empty.digest, { maxBytes: 0, signal })).length, 0);
		});

		check("write of many chunks keeps them all", async (store) => {
			const whole = new Uint8Array(3_000_000).map((_, i) => i * 7);
			async function* chunks(): AsyncGenerator<Uint8Array> {
				for (let at = 0; at < whole.length; at += 1000) {
					yield whole.slice(at, at + 1000);
				}
			}
			const info = await store.write(chunks(), {
				expected: { digest: sha256(whole), size: whole.length },
				signal,
			});
			assert.deepEqual(
				await readBlob(store, info.digest, { maxBytes: whole.length, signal }),
				Buffer.from(whole),
			);
		});

		check("read takes offset and length", async (store) => {
			await store.write(chunksOf(hello), { signal });
			const part = async (offset: number, length?: number): Promise<string> =>
				Buffer.from(
					await collect(store.read(digest, { offset, ...(length === undefined ? {} : { length }), signal }), {
						maxBytes: 100,
						what: "part",
					}),
				).toString();
			assert.equal(await part(7), "world");
			assert.equal(await part(7, 2), "wo");
			assert.equal(await part(12), "");
			assert.equal(await part(0, 0), "");
			assert.equal(await part(5, 1000), ", world");
			await assert.rejects(part(13), code("out-of-range"));
			await assert.rejects(part(-1), code("out-of-range"));
		});

		check("read, info and delete of a blob that is not there", async (store) => {
			assert.equal(await store.info(digest), undefined);
			await assert.rejects(readBlob(store, digest, { maxBytes: 100, signal }), code("not-found"));
			await store.delete(digest);
		});

		check("a wrong digest leaves nothing", async (store) => {
			const expected = { digest: sha256("something else") };
			await assert.rejects(store.write(chunksOf(hello), { expected, signal }), code("data-loss"));
			assert.deepEqual(await listed(store), []);
		});

		check("a blob of the wrong size leaves nothing, and too many bytes are not waited for", async (store) => {
			const short = store.write(chunksOf(hello), { expected: { digest, size: 13 }, signal });
			await assert.rejects(short, /ended after 12 of the expected 13 bytes/);
			let ended = false;
			async function* endless(): AsyncGenerator<Uint8Array> {
				try {
					for (;;) {
						yield new Uint8Array(1000);
					}
				} finally {
					ended = true;
				}
			}
			await assert.rejects(
				store.write(endless(), { expected: { size: 5000 }, signal }),
				/longer than the expected 5000/,
			);
			assert.equal(ended, true);
			assert.deepEqual(await listed(store), []);
		});

		check("an error of the source leaves nothing and is thrown", async (store) => {
			async function* broken(): AsyncGenerator<Uint8Array> {
				yield hello;
				throw new SlipwayError("unavailable", "the wire was cut");
			}
			await assert.rejects(store.write(broken(), { signal }), /the wire was cut/);
			assert.deepEqual(await listed(store), []);
		});

		check("an abort stops reading and writing with its reason", async (store) => {
			await store.write(chunksOf(hello), { signal });
			const controller = new AbortController();
			async function* slow(): AsyncGenerator<Uint8Array> {
				yield text("a");
				controller.abort(new SlipwayError("canceled", "enough"));
				yield text("b");
			}
			await assert.rejects(store.write(slow(), { signal: controller.signal }), /enough/);
			await assert.rejects(readBlob(store, digest, { maxBytes: 100, signal: controller.signal }), /enough/);
			assert.deepEqual(await listed(store), [digest]);
		});

		check("a blob that is there is not written again, and its source is ended", async (store) => {
			await store.write(chunksOf(hello), { signal });
			let asked = false;
			async function* source(): AsyncGenerator<Uint8Array> {
				asked = true;
				yield hello;
			}
			const info = await store.write(source(), { expected: { digest }, signal });
			assert.deepEqual(info, { digest, size: hello.length });
			assert.equal(asked, false);
		});

		check("concurrent writes of one blob all succeed", async (store) => {
			const all = await Promise.all([1, 2, 3].map(() => store.write(chunksOf(hello), { signal })));
			assert.deepEqual(
				all.map((info) => info.digest),
				[digest, digest, digest],
			);
			assert.deepEqual(await listed(store), [digest]);
		});

		check("sha512 digests are verified and kept under their name", async (store) => {
			const long =
				"sha512:8710339dcb6814d0d9d2290ef422285c9322b7163951f9a0ca8f883d3305286f44139aa374848e4174f5aada663027e4548637b6d19894aec4fb6c46a139fbf9" as Digest;
			await store.write(chunksOf(hello), { expected: { digest: long }, signal });
			assert.deepEqual(await store.info(long), { digest: long, size: hello.length });
			assert.equal(await verifyBlob(store, long, { signal }), true);
		});

		check("delete removes, verify tells what is there", async (store) => {
			await store.write(chunksOf(hello), { signal });
			assert.equal(await verifyBlob(store, digest, { signal }), true);
			await store.delete(digest);
			assert.equal(await verifyBlob(store, digest, { signal }), false);
			assert.deepEqual(await listed(store), []);
		});
	});
}
