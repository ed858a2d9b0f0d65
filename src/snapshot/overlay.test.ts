import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { describe, it } from "node:test";
import { createThreadPool } from "../async/pool.ts";
import { hasCode } from "../errors/errors.ts";
import { mount, unmount } from "../sys/mount.ts";
import type { MountSpec } from "../sys/sys.ts";
import { openOverlaySnapshotter } from "./overlay.ts";
import { testSnapshotter } from "./snapshot.suite.ts";
import type { SnapshotId } from "./snapshot.ts";

testSnapshotter("overlay", openOverlaySnapshotter);

describe("overlay snapshotter", () => {
	const signal = new AbortController().signal;

	it("refuses a directory whose name has a comma", () => {
		const pool = createThreadPool({ size: 1 });
		assert.throws(
			() => openOverlaySnapshotter({ root: `${tmpdir()}/a,b`, pool }),
			(error) => hasCode(error, "invalid-argument"),
		);
	});

	it("suggests the native snapshotter where overlayfs does not work", async () => {
		const folder = mkdtempSync(`${tmpdir()}/slipway-overlay-`);
		await using pool = createThreadPool({ size: 1 });
		const [low, up, work, at] = ["low", "up", "work", "at"].map((name) => {
			mkdirSync(`${folder}/${name}`);
			return `${folder}/${name}`;
		}) as [string, string, string, string];
		// overlayfs refuses an upper directory on overlayfs.
		mount(
			{
				type: "overlay",
				source: "overlay",
				options: [`lowerdir=${low}`, `upperdir=${up}`, `workdir=${work}`],
			},
			at,
		);
		try {
			assert.throws(
				() => openOverlaySnapshotter({ root: `${at}/snapshots`, pool }),
				/use the native snapshotter/,
			);
		} finally {
			unmount(at);
			rmSync(folder, { recursive: true });
		}
	});

	it("stacks layers on other parents without hiding strangers' files", async () => {
		const folder = mkdtempSync(`${tmpdir()}/slipway-overlay-`);
		await using pool = createThreadPool({ size: 1 });
		const snapshots = openOverlaySnapshotter({ root: `${folder}/root`, pool });
		const withMount = async <T>(
			specs: readonly MountSpec[],
			work: (dir: string) => T | Promise<T>,
		): Promise<T> => {
			const dir = mkdtempSync(`${folder}/at-`);
			for (const spec of specs) {
				mount(spec, dir);
			}
			try {
				return await work(dir);
			} finally {
				unmount(dir);
			}
		};
		const make = async (
			id: string,
			parents: SnapshotId[],
			write: (dir: string) => void,
		): Promise<SnapshotId> => {
			const made = id as SnapshotId;
			await snapshots.create({ id: made, parents, signal });
			await withMount(snapshots.mounts(made, parents), write);
			return made;
		};
		try {
			const base = await make("base", [], (dir) => {
				mkdirSync(`${dir}/renewed/sub`, { recursive: true });
				writeFileSync(`${dir}/renewed/old`, "");
				writeFileSync(`${dir}/renewed/sub/old`, "");
			});
			const step = await make("step", [base], (dir) => {
				mkdirSync(`${dir}/fresh`);
				writeFileSync(`${dir}/fresh/mine`, "mine");
				rmSync(`${dir}/renewed`, { recursive: true });
				mkdirSync(`${dir}/renewed/sub`, { recursive: true });
				writeFileSync(`${dir}/renewed/sub/new`, "");
			});
			const other = await make("other", [], (dir) => {
				mkdirSync(`${dir}/fresh`);
				writeFileSync(`${dir}/fresh/theirs`, "");
				mkdirSync(`${dir}/renewed/sub`, { recursive: true });
				writeFileSync(`${dir}/renewed/old`, "");
				writeFileSync(`${dir}/renewed/stranger`, "");
				writeFileSync(`${dir}/renewed/sub/old`, "");
			});
			assert.equal(await snapshots.stacking?.isPortable(base, { signal }), true);
			assert.equal(await snapshots.stacking?.isPortable(step, { signal }), false);
			const portable = "portable" as SnapshotId;
			await withMount(snapshots.view([base]), async (dir) => {
				await snapshots.stacking?.makePortable({ id: portable, from: step, base: dir, signal });
			});
			assert.equal(await snapshots.stacking?.isPortable(portable, { signal }), true);
			await withMount(snapshots.view([other, portable]), (dir) => {
				assert.deepEqual(readdirSync(`${dir}/fresh`).sort(), ["mine", "theirs"]);
				assert.deepEqual(readdirSync(`${dir}/renewed`).sort(), ["stranger", "sub"]);
				assert.deepEqual(readdirSync(`${dir}/renewed/sub`), ["new"]);
				assert.equal(readFileSync(`${dir}/fresh/mine`, "utf8"), "mine");
			});
			await withMount(snapshots.view([base, portable]), (dir) => {
				assert.deepEqual(readdirSync(`${dir}/renewed`), ["sub"]);
			});
			// A layer of changes alone shows no whiteouts.
			await withMount(snapshots.view([portable]), (dir) => {
				assert.deepEqual(readdirSync(dir).sort(), ["fresh", "renewed"]);
				assert.deepEqual(readdirSync(`${dir}/renewed`), ["sub"]);
			});
			assert.equal(statSync(`${folder}/root/portable/fs/fresh/mine`).nlink, 2);
		} finally {
			rmSync(folder, { recursive: true });
		}
	});
});
