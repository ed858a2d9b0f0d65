import assert from "node:assert/strict";
import {
	existsSync,
	mkdirSync,
	mkdtempSync,
	readFileSync,
	rmSync,
	truncateSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { crc32 } from "node:zlib";
import type { Archiver } from "../archive/archive.ts";
import { createArchiver } from "../archive/archiver.ts";
import { createThreadPool, type ThreadPool } from "../async/pool.ts";
import { chunksOf, collect } from "../content/bytes.ts";
import { SlipwayError } from "../errors/errors.ts";
import { sha256 } from "../oci/digest.ts";
import { discardProgress } from "../progress/progress.ts";
import type { StepContext } from "../solver/solver.ts";
import { readNotes, restoredLayers, writeNotes } from "./mount-notes.ts";
import type { ObjectStore } from "./objects.ts";
import { listMount, packMount } from "./pack-mount.ts";
import { unpackMount } from "./unpack-mount.ts";

const { signal } = new AbortController();
const context: StepContext = {
	signal,
	vertex: sha256("test"),
	progress: discardProgress,
	clients: () => [],
};

let dir: string;
let pool: ThreadPool;
let archiver: Archiver;
/** Layers that were written. */
let written = 0;

before(() => {
	dir = mkdtempSync(join(tmpdir(), "slipway-pack-mount-"));
	pool = createThreadPool({ size: 2 });
	const real = createArchiver(pool);
	archiver = {
		...real,
		writeLayer: (...args) => {
			written++;
			return real.writeLayer(...args);
		},
		extractLayer: (...args) => real.extractLayer(...args),
	};
});

after(async () => {
	await pool[Symbol.asyncDispose]();
	rmSync(dir, { recursive: true, force: true });
});

/** Large enough for a group of its own; almost all of it is a hole. */
function writeLarge(path: string, text: string): void {
	writeFileSync(path, text);
	truncateSync(path, 4 << 20);
}

/** A name below the folder that ends a group. */
function large(folder: number): string {
	for (let at = 0; ; at++) {
		if (crc32(`/${folder}/large${at}`) % 512 === 0) {
			return `large${at}`;
		}
	}
}

function memoryStore(blobs: Map<string, Uint8Array>): ObjectStore {
	return {
		putBlob: async ({ digest }, open) => {
			if (!blobs.has(digest)) {
				blobs.set(digest, await collect(open(), { maxBytes: 1e9, what: "layer" }));
			}
		},
		putConfig: async () => undefined,
		configs: async () => [],
		blobs: {
			read: ({ digest }) => {
				const bytes = blobs.get(digest);
				if (bytes === undefined) {
					throw new SlipwayError("not-found", "no such blob");
				}
				return chunksOf(bytes);
			},
		},
	};
}

test("packMount: untouched files are not packed again, unless the store lacks their layer; restored ones neither", async () => {
	const mount = join(dir, "mount");
	for (let at = 0; at < 3; at++) {
		mkdirSync(join(mount, `${at}`), { recursive: true });
		writeLarge(join(mount, `${at}/${large(at)}`), `${at}`);
	}
	const blobs = new Map<string, Uint8Array>();
	const store = memoryStore(blobs);
	const packer = { archiver, pool, temporaryRoot: join(dir, "temporary") };
	const pack = async (directory: string, known: Parameters<typeof packMount>[2]["known"]) => {
		written = 0;
		return await packMount("m", directory, { store, known }, packer, context);
	};
	const first = await pack(mount, new Map());
	assert.equal(written, 4, "three groups of files and the folders");
	assert.equal(blobs.size, 4);
	// As they are kept with the record.
	const notes = new Map<string, string | undefined>();
	const record = {
		getMetadata: (key: string) => notes.get(key),
		setMetadata: (key: string, value: string | undefined) => void notes.set(key, value),
	};
	assert.equal(readNotes(record).size, 0);
	writeNotes(record, first.known);
	const again = await pack(mount, readNotes(record));
	assert.equal(written, 0);
	assert.deepEqual(again, first);

	writeLarge(join(mount, `1/${large(1)}`), "changed");
	const changed = await pack(mount, first.known);
	assert.equal(written, 1);
	assert.notDeepEqual(changed.mount, first.mount);

	const [lost] = changed.mount.layers;
	blobs.delete(lost?.digest ?? "");
	assert.deepEqual((await pack(mount, changed.known)).mount, changed.mount);
	assert.equal(written, 1);
	assert.ok(blobs.has(lost?.digest ?? ""));

	const restored = join(dir, "restored");
	mkdirSync(restored);
	await unpackMount(changed.mount, restored, store, archiver, context);
	assert.equal(
		readFileSync(join(restored, `1/${large(1)}`))
			.subarray(0, 7)
			.toString(),
		"changed",
	);
	const known = restoredLayers(await listMount(restored, packer, context), changed.mount);
	writeFileSync(join(restored, "2/more"), "");
	const later = await pack(restored, known);
	assert.equal(written, 2, "the group with the new file, and the folders, one of which has another time");
	assert.deepEqual(later.mount.layers.slice(0, 2), changed.mount.layers.slice(0, 2));

	// Notes that lie cost time, and nothing else.
	const [, other] = changed.mount.layers;
	blobs.delete(lost?.digest ?? "");
	blobs.delete(other?.digest ?? "");
	const wrong = new Map(
		[...changed.known].map(([state, layer]) => [state, layer === lost ? other : layer] as const),
	);
	const right = await pack(mount, wrong as typeof changed.known);
	assert.deepEqual(right.mount, changed.mount);
	assert.deepEqual(existsSync(packer.temporaryRoot), true);
	notes.set([...notes.keys()][0] ?? "", "{");
	assert.equal(readNotes(record).size, 0, "damaged notes are none");
});
