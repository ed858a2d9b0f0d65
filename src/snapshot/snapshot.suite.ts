import assert from "node:assert/strict";
import {
	chmodSync,
	chownSync,
	existsSync,
	linkSync,
	lstatSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	readlinkSync,
	rmSync,
	statSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { after, before, describe, it } from "node:test";
import { createThreadPool, type ThreadPool } from "../async/pool.ts";
import { hasCode } from "../errors/errors.ts";
import { mount, unmount } from "../sys/mount.ts";
import { makeDevice, makeNode, setTimes } from "../sys/node.ts";
import type { MountSpec } from "../sys/sys.ts";
import { getXattr, setXattr } from "../sys/xattr.ts";
import type { SnapshotId, Snapshotter } from "./snapshot.ts";

/** What every snapshotter must do. `open` is called with a new directory. */
export function testSnapshotter(
	name: string,
	open: (options: { readonly root: string; readonly pool: ThreadPool }) => Snapshotter,
): void {
	describe(`snapshotter ${name}`, () => {
		let folder: string;
		let pool: ThreadPool;
		let snapshots: Snapshotter;
		let count = 0;
		const signal = new AbortController().signal;

		before(() => {
			folder = mkdtempSync(`${tmpdir()}/slipway-snapshot-`);
			pool = createThreadPool({ size: 1 });
			snapshots = open({ root: `${folder}/root`, pool });
		});
		after(async () => {
			await pool[Symbol.asyncDispose]();
			rmSync(folder, { recursive: true, force: true });
		});

		const id = (): SnapshotId => `s${(count++).toString(36)}` as SnapshotId;

		function withMount<T>(specs: readonly MountSpec[], work: (dir: string) => T): T {
			const dir = mkdtempSync(`${folder}/at-`);
			for (const spec of specs) {
				mount(spec, dir);
			}
			try {
				return work(dir);
			} finally {
				unmount(dir);
			}
		}

		/** A finished snapshot. */
		async function make(
			parents: readonly SnapshotId[],
			write: (dir: string) => void,
		): Promise<readonly SnapshotId[]> {
			const made = id();
			await snapshots.create({ id: made, parents, signal });
			withMount(snapshots.mounts(made, parents), write);
			return [...parents, made];
		}

		it("shows an empty, read-only tree for no layers", () => {
			withMount(snapshots.view([]), (dir) => {
				assert.deepEqual(readdirSync(dir), []);
				assert.throws(() => writeFileSync(`${dir}/x`, ""), { code: "EROFS" });
			});
		});

		it("keeps what was written, and shows it read-only", async () => {
			const layers = await make([], (dir) => {
				writeFileSync(`${dir}/file`, "one");
				mkdirSync(`${dir}/folder`);
			});
			withMount(snapshots.view(layers), (dir) => {
				assert.equal(readFileSync(`${dir}/file`, "utf8"), "one");
				assert.equal(statSync(dir).mode & 0o7777, 0o755);
				assert.throws(() => writeFileSync(`${dir}/file`, "two"), { code: "EROFS" });
			});
		});

		it("does not change parents: deletes, replaces, renews directories", async () => {
			const lower = await make([], (dir) => {
				mkdirSync(`${dir}/gone/deep`, { recursive: true });
				writeFileSync(`${dir}/gone/deep/file`, "1");
				mkdirSync(`${dir}/renewed`);
				writeFileSync(`${dir}/renewed/old`, "1");
				writeFileSync(`${dir}/changed`, "1");
				writeFileSync(`${dir}/kind`, "1");
			});
			const upper = await make(lower, (dir) => {
				rmSync(`${dir}/gone`, { recursive: true });
				rmSync(`${dir}/renewed`, { recursive: true });
				mkdirSync(`${dir}/renewed`);
				writeFileSync(`${dir}/renewed/new`, "2");
				writeFileSync(`${dir}/changed`, "2");
				rmSync(`${dir}/kind`);
				mkdirSync(`${dir}/kind`);
			});
			withMount(snapshots.view(upper), (dir) => {
				assert.deepEqual(readdirSync(dir).sort(), ["changed", "kind", "renewed"]);
				assert.deepEqual(readdirSync(`${dir}/renewed`), ["new"]);
				assert.equal(readFileSync(`${dir}/changed`, "utf8"), "2");
				assert.ok(statSync(`${dir}/kind`).isDirectory());
			});
			withMount(snapshots.view(lower), (dir) => {
				assert.deepEqual(readdirSync(dir).sort(), ["changed", "gone", "kind", "renewed"]);
				assert.equal(readFileSync(`${dir}/changed`, "utf8"), "1");
				assert.deepEqual(readdirSync(`${dir}/renewed`), ["old"]);
			});
		});

		it("stacks 150 layers", async () => {
			let layers: readonly SnapshotId[] = [];
			for (let index = 0; index < 150; index++) {
				layers = await make(layers, (dir) => {
					if (index === 149) {
						assert.equal(readdirSync(dir).length, 5);
						rmSync(`${dir}/file3`);
					}
					writeFileSync(`${dir}/file${index % 5}`, String(index));
				});
			}
			withMount(snapshots.view(layers), (dir) => {
				assert.deepEqual(readdirSync(dir).sort(), ["file0", "file1", "file2", "file4"]);
				assert.equal(readFileSync(`${dir}/file4`, "utf8"), "149");
			});
		});

		it("mounts a snapshot for writing again and again", async () => {
			const lower = await make([], (dir) => writeFileSync(`${dir}/a`, "1"));
			const made = id();
			await snapshots.create({ id: made, parents: lower, signal });
			for (const name of ["b", "c", "d"]) {
				withMount(snapshots.mounts(made, lower), (dir) => writeFileSync(`${dir}/${name}`, name));
			}
			withMount(snapshots.view([...lower, made]), (dir) => {
				assert.deepEqual(readdirSync(dir).sort(), ["a", "b", "c", "d"]);
			});
		});

		it("keeps metadata, links, devices and hostile names across layers", async () => {
			const hostile = [
				"new\nline",
				"colon:comma,",
				"back\\slash",
				" ",
				"ünï",
				"-rf",
				"'\"$(x)",
				"a".repeat(255),
			];
			const raw = Buffer.from([0x66, 0xff, 0xfe]);
			const lower = await make([], (dir) => {
				for (const name of hostile) {
					writeFileSync(`${dir}/${name}`, name);
				}
				writeFileSync(Buffer.concat([Buffer.from(`${dir}/`), raw]), "raw");
				writeFileSync(`${dir}/first`, "x".repeat(100_000));
				linkSync(`${dir}/first`, `${dir}/second`);
				symlinkSync("../outside/\n", `${dir}/link`);
				makeNode(`${dir}/null`, "character", 0o666, makeDevice(1, 3));
				makeNode(`${dir}/fifo`, "fifo", 0o600);
				setXattr(`${dir}/first`, "user.note", Buffer.from("hello"));
				chownSync(`${dir}/first`, 1234, 5678);
				chmodSync(`${dir}/first`, 0o4751);
				setTimes(`${dir}/first`, undefined, { seconds: 1_000_000_000, nanoseconds: 123_456_789 });
				mkdirSync(`${dir}/dir`);
				chmodSync(`${dir}/dir`, 0o1777);
				setTimes(`${dir}/dir`, undefined, { seconds: 5, nanoseconds: 1 });
				chmodSync(dir, 0o700);
			});
			const upper = await make(lower, (dir) => writeFileSync(`${dir}/other`, ""));
			withMount(snapshots.view(upper), (dir) => {
				for (const name of hostile) {
					assert.equal(readFileSync(`${dir}/${name}`, "utf8"), name);
				}
				assert.equal(readFileSync(Buffer.concat([Buffer.from(`${dir}/`), raw]), "utf8"), "raw");
				const first = lstatSync(`${dir}/first`, { bigint: true });
				assert.equal(first.mtimeNs, 1_000_000_000_123_456_789n);
				assert.equal(Number(first.mode) & 0o7777, 0o4751);
				assert.deepEqual([first.uid, first.gid, first.nlink], [1234n, 5678n, 2n]);
				assert.equal(first.ino, lstatSync(`${dir}/second`, { bigint: true }).ino);
				assert.equal(Buffer.from(getXattr(`${dir}/first`, "user.note") ?? []).toString(), "hello");
				assert.equal(readlinkSync(`${dir}/link`), "../outside/\n");
				assert.equal(lstatSync(`${dir}/null`).rdev, makeDevice(1, 3));
				assert.ok(lstatSync(`${dir}/fifo`).isFIFO());
				assert.equal(lstatSync(`${dir}/dir`).mode & 0o7777, 0o1777);
				assert.equal(lstatSync(`${dir}/dir`, { bigint: true }).mtimeNs, 5_000_000_001n);
				assert.equal(lstatSync(dir).mode & 0o7777, 0o700);
			});
			withMount(snapshots.view(lower), (dir) => assert.ok(!existsSync(`${dir}/other`)));
		});

		it("counts allocated bytes, linked files once", async () => {
			const layers = await make([], (dir) => {
				writeFileSync(`${dir}/a`, "x".repeat(1 << 20));
				linkSync(`${dir}/a`, `${dir}/b`);
			});
			const top = layers.at(-1) as SnapshotId;
			const { bytes, inodes } = await snapshots.usage(top, { signal });
			assert.ok(bytes >= 1 << 20 && bytes < (1 << 20) + 65_536, String(bytes));
			assert.ok(inodes >= 3 && inodes <= 5, String(inodes));
		});

		it("lists, removes, and sweeps what a killed process left", async () => {
			const layers = await make([], (dir) => {
				for (let index = 0; index < 300; index++) {
					writeFileSync(`${dir}/${index}`, "");
				}
				mkdirSync(`${dir}/sealed`);
				writeFileSync(`${dir}/sealed/file`, "");
				chmodSync(`${dir}/sealed`, 0);
			});
			const top = layers.at(-1) as SnapshotId;
			assert.ok((await snapshots.list()).includes(top));
			assert.ok(snapshots.exists(top));
			await snapshots.remove(top);
			await snapshots.remove(top);
			assert.ok(!(await snapshots.list()).includes(top));
			assert.ok(!snapshots.exists(top));
			mkdirSync(`${folder}/root/.new-x/fs`, { recursive: true });
			mkdirSync(`${folder}/root/.gone-x/fs`, { recursive: true });
			open({ root: `${folder}/root`, pool });
			assert.deepEqual(
				readdirSync(`${folder}/root`).filter((entry) => /new|gone/.test(entry)),
				[],
			);
		});

		it("refuses an id that is there, and one that is no name", async () => {
			const layers = await make([], () => {});
			const there = layers.at(-1) as SnapshotId;
			await assert.rejects(snapshots.create({ id: there, parents: [], signal }), (error) =>
				hasCode(error, "already-exists"),
			);
			await assert.rejects(snapshots.remove("../x" as SnapshotId), (error) =>
				hasCode(error, "invalid-argument"),
			);
		});
	});
}
