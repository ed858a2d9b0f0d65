import assert from "node:assert/strict";
import { test } from "node:test";
import type { ImmutableRef } from "../cache/cache.ts";
import { SlipwayError } from "../errors/errors.ts";
import { sha256 } from "../oci/digest.ts";
import { mediaTypes } from "../oci/media-types.ts";
import { discardProgress } from "../progress/progress.ts";
import type { StepContext } from "../solver/solver.ts";
import type { CacheBlob, CacheTarget } from "./remotecache.ts";
import { EarlyUploads, Uploads } from "./uploads.ts";

const context: StepContext = {
	signal: new AbortController().signal,
	vertex: sha256("test"),
	progress: discardProgress,
	clients: () => [],
};

function blobOf(name: string): CacheBlob {
	return {
		descriptor: { mediaType: mediaTypes.ociLayerGzip, digest: sha256(name), size: 1 },
		diffId: sha256(`plain ${name}`),
		createdAt: 0,
		description: undefined,
		provider: { read: () => assert.fail() },
	};
}

/** `sent` has what arrived, `arrived` also waits for a failure; the first transfer of each blob in `failing` fails. */
function fakeTarget(failing: ReadonlySet<string> = new Set()): {
	readonly target: CacheTarget;
	readonly sent: string[];
	readonly arrived: (name: string) => Promise<void>;
} {
	const sent: string[] = [];
	const failed = new Set<string>();
	const waiting = new Map<string, () => void>();
	return {
		sent,
		arrived: (name) =>
			sent.includes(sha256(name))
				? Promise.resolve()
				: new Promise((resolve) => waiting.set(sha256(name), resolve)),
		target: {
			name: "test",
			form: { compression: "gzip", level: undefined, force: false },
			sendBlob: async ({ descriptor: { digest } }) => {
				if (failing.has(digest) && !failed.has(digest)) {
					failed.add(digest);
					waiting.get(digest)?.();
					throw new SlipwayError("unavailable", "not now");
				}
				sent.push(digest);
				waiting.get(digest)?.();
			},
			finish: async () => ({}),
		},
	};
}

function refOf(...names: readonly string[]): {
	readonly ref: ImmutableRef;
	readonly handles: { count: number };
} {
	const handles = { count: 0 };
	const ref = {
		clone: () => {
			handles.count++;
			return { ...ref, release: async () => void handles.count-- };
		},
		blobs: async () => names.map(blobOf),
	} as unknown as ImmutableRef;
	return { ref, handles };
}

test("Uploads: a blob is sent once, however often it is asked for", async () => {
	const { target, sent } = fakeTarget();
	const uploads = new Uploads(target);
	await Promise.all([uploads.send(blobOf("a"), context), uploads.send(blobOf("a"), context)]);
	await uploads.send(blobOf("a"), context);
	assert.deepEqual(sent, [sha256("a")]);
});

test("EarlyUploads: what a step has made arrives before there is an export, and is not sent again", async () => {
	const { target, sent, arrived } = fakeTarget();
	const uploads = new Uploads(target);
	const { ref, handles } = refOf("a", "b");
	{
		await using early = new EarlyUploads([{ form: target.form, uploads }]);
		early.add(ref);
		await arrived("a");
		await arrived("b");
	}
	assert.equal(handles.count, 0);
	await uploads.send(blobOf("a"), context);
	await uploads.send(blobOf("c"), context);
	assert.deepEqual(sent.toSorted(), [sha256("a"), sha256("b"), sha256("c")].toSorted());
});

test("EarlyUploads: what failed early is tried again by the export", async () => {
	const { target, sent, arrived } = fakeTarget(new Set([sha256("a")]));
	const uploads = new Uploads(target);
	{
		await using early = new EarlyUploads([{ form: target.form, uploads }]);
		const tried = arrived("a");
		early.add(refOf("a").ref);
		await tried;
	}
	await uploads.send(blobOf("a"), context);
	assert.deepEqual(sent, [sha256("a")]);
});

test("EarlyUploads: without targets nothing is held", () => {
	const { ref, handles } = refOf("a");
	new EarlyUploads([]).add(ref);
	assert.equal(handles.count, 0);
});
