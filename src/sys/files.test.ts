import assert from "node:assert/strict";
import {
	closeSync,
	lstatSync,
	mkdirSync,
	mkdtempSync,
	openSync,
	readFileSync,
	rmSync,
	symlinkSync,
	truncateSync,
	writeFileSync,
	writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { findDetail, hasCode } from "../errors/errors.ts";
import { copyFile } from "./copy.ts";
import { lockFile, tryLock } from "./lock.ts";
import { freeSpace, makeDevice, makeNode, renameWith, setTimes, splitDevice } from "./node.ts";
import { getXattr, listXattrs, removeXattr, setXattr } from "./xattr.ts";

const folder = mkdtempSync(join(tmpdir(), "sys-files-"));
after(() => rmSync(folder, { recursive: true, force: true }));
let made = 0;
const fresh = (): string => join(folder, `f${made++}`);
const text = (bytes: Uint8Array | undefined): string | undefined =>
	bytes === undefined ? undefined : new TextDecoder().decode(bytes);

test("extended attributes are set, read, listed and removed", () => {
	const file = fresh();
	writeFileSync(file, "");
	assert.equal(getXattr(file, "trusted.slipway"), undefined);
	setXattr(file, "trusted.slipway", new TextEncoder().encode("y"));
	setXattr(file, "trusted.empty", new Uint8Array());
	assert.equal(text(getXattr(file, "trusted.slipway")), "y");
	assert.equal(text(getXattr(file, "trusted.empty")), "");
	assert.deepEqual(listXattrs(file).sort(), ["trusted.empty", "trusted.slipway"]);
	assert.equal(removeXattr(file, "trusted.empty"), true);
	assert.equal(removeXattr(file, "trusted.empty"), false);
	assert.deepEqual(listXattrs(file), ["trusted.slipway"]);
});

test("an attribute of a symbolic link is its own", () => {
	const file = fresh();
	const link = fresh();
	writeFileSync(file, "");
	symlinkSync(file, link);
	setXattr(file, "trusted.slipway", new TextEncoder().encode("file"));
	assert.equal(getXattr(link, "trusted.slipway"), undefined);
});

test("an error names call and path and keeps the errno", () => {
	const gone = fresh();
	assert.throws(
		() => getXattr(gone, "user.x"),
		(error: Error) => {
			assert.equal(error.message, `lgetxattr user.x of ${gone}: ENOENT: no such file or directory`);
			assert.equal(findDetail(error, "errno")?.errno, "ENOENT");
			return hasCode(error, "not-found");
		},
	);
	assert.throws(() => getXattr("/tmp\0/x", "user.x"), /EINVAL/);
});

test("names that are not UTF-8 can be given as bytes", () => {
	const name = new Uint8Array([...new TextEncoder().encode(`${folder}/`), 0xff, 0xfe]);
	makeNode(name, "fifo", 0o600);
	assert.ok(lstatSync(Buffer.from(name)).isFIFO());
	setTimes(name, { seconds: 1, nanoseconds: 0 }, { seconds: 2, nanoseconds: 5 });
	assert.equal(lstatSync(Buffer.from(name), { bigint: true }).mtimeNs, 2_000_000_005n);
});

test("device numbers survive packing, as the kernel has them", () => {
	for (const [major, minor] of [
		[0, 0],
		[1, 3],
		[8, 257],
		[4095, 1_048_575],
	] as const) {
		assert.deepEqual(splitDevice(makeDevice(major, minor)), { major, minor });
	}
	const path = fresh();
	makeNode(path, "character", 0o600, makeDevice(1, 300));
	assert.ok(lstatSync(path).isCharacterDevice());
	assert.deepEqual(splitDevice(lstatSync(path).rdev), { major: 1, minor: 300 });
});

test("setTimes keeps nanoseconds, before 1970 too, and does not follow links", () => {
	const file = fresh();
	const link = fresh();
	writeFileSync(file, "");
	symlinkSync(file, link);
	setTimes(file, { seconds: -2, nanoseconds: 1 }, { seconds: 1_700_000_000, nanoseconds: 123_456_789 });
	setTimes(link, undefined, { seconds: 7, nanoseconds: 8 });
	const stat = lstatSync(file, { bigint: true });
	assert.equal(stat.mtimeNs, 1_700_000_000_123_456_789n);
	assert.equal(stat.atimeNs, -1_999_999_999n);
	assert.equal(lstatSync(link, { bigint: true }).mtimeNs, 7_000_000_008n);
});

test("renameWith swaps and refuses to replace", () => {
	const a = fresh();
	const b = fresh();
	writeFileSync(a, "a");
	mkdirSync(b);
	renameWith(a, b, "exchange");
	assert.ok(lstatSync(a).isDirectory());
	assert.throws(
		() => renameWith(a, b, "no-replace"),
		(error) => hasCode(error, "already-exists"),
	);
});

test("copyFile copies small, big and sparse files", () => {
	const big = Buffer.alloc(3_000_001, "slipway");
	for (const content of [Buffer.alloc(0), Buffer.from("x"), big]) {
		const from = fresh();
		const to = fresh();
		writeFileSync(from, content);
		copyFile(from, to, 0o640);
		assert.ok(readFileSync(to).equals(content));
	}
	const from = fresh();
	const to = fresh();
	writeFileSync(from, "");
	truncateSync(from, 50 << 20);
	const fd = openSync(from, "r+");
	writeSync(fd, "middle", 20 << 20);
	closeSync(fd);
	copyFile(from, to, 0o600);
	assert.equal(lstatSync(to).size, 50 << 20);
	assert.ok(lstatSync(to).blocks * 512 < 10 << 20, "holes were filled");
	assert.ok(readFileSync(to).equals(readFileSync(from)));
});

test("copyFile neither replaces nor follows, and leaves nothing on failure", () => {
	const from = fresh();
	const to = fresh();
	writeFileSync(from, "new");
	writeFileSync(to, "old");
	assert.throws(
		() => copyFile(from, to, 0o600),
		(error) => hasCode(error, "already-exists"),
	);
	assert.equal(readFileSync(to, "utf8"), "old");
	const link = fresh();
	symlinkSync(from, link);
	assert.throws(() => copyFile(link, fresh(), 0o600), /ELOOP/);
});

test("a lock file has one owner at a time", () => {
	const path = fresh();
	const lock = lockFile(path);
	assert.ok(lock !== undefined);
	assert.equal(lockFile(path), undefined);
	const other = openSync(path, "r");
	assert.equal(tryLock(other), false);
	lock[Symbol.dispose]();
	lock[Symbol.dispose]();
	assert.equal(tryLock(other), true);
	closeSync(other);
	assert.equal(readFileSync(path, "utf8"), `${process.pid}\n`);
});

test("freeSpace is plausible", () => {
	const space = freeSpace(folder);
	assert.ok(space.total >= space.free && space.free >= space.available && space.available > 0);
});
