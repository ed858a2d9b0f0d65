import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { hash } from "node:crypto";
import {
	closeSync,
	linkSync,
	mkdirSync,
	mkdtempSync,
	openSync,
	rmSync,
	symlinkSync,
	truncateSync,
	writeFileSync,
	writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { hasCode } from "../errors/errors.ts";
import { cleanPath } from "../patterns/clean-path.ts";
import { bytesOf, textOf } from "../sys/byte-names.ts";
import type { TarHeader } from "./archive.ts";
import { makeTar, readTar } from "./tar-fixture.ts";
import { encodeHeader, tarEntry, tarHeader } from "./tar-writer.ts";
import { xattrsOf } from "./xattr-records.ts";

const folder = mkdtempSync(join(tmpdir(), "tar-"));
after(() => rmSync(folder, { recursive: true, force: true }));

/** Headers and the SHA-256 of what Go 1.26's archive/tar writes for them. */
const golden: readonly (readonly [
	sha256: string,
	header: Partial<TarHeader> & Pick<TarHeader, "kind" | "name">,
])[] = [
	[
		"4f2920b86c57072039e0e0b1ef530e9736a05f93bb1ce4fbcae9fb9815d8ddc1",
		{
			kind: "file",
			name: "etc/passwd",
			size: 1234,
			mode: 420,
			uid: 1000,
			gid: 1000,
			modified: { seconds: 1700000000, nanoseconds: 0 },
			format: "pax",
		},
	],
	[
		"782ff7c816368617bb4ffb48f8fc2bcea58985a390ec6db8d581462e0712a6cf",
		{ kind: "directory", name: "usr/bin/", mode: 493, format: "pax" },
	],
	[
		"f6b90cde51d4c74e1f698ab54489db4059074ec8815910012fdc4ab8f1a52a01",
		{ kind: "file", name: "bin/ping", size: 8589934592, mode: 2541, format: "pax" },
	],
	[
		"ac2ac0257944dbd643fec7ad21e0f8083dbf334047dd9cc39218237194e72ac7",
		{
			kind: "symlink",
			name: "a",
			linkName:
				"lllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll",
			mode: 511,
			format: "pax",
		},
	],
	[
		"76fe6252bd5d385c019f9fb5d9d31cf56f61ea233a1c39824f88367d6c2186ea",
		{
			kind: "hardlink",
			name: "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd/ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
			linkName: "x",
			format: "pax",
		},
	],
	[
		"cabeff7368464ef3c7059b712cb3443aac931653f480c82c9cbf16d988577694",
		{
			kind: "file",
			name: "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd/fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
			uid: 2097152,
			format: "pax",
		},
	],
	[
		"3d592238ab1daf0f782fb4fa6d7f9cbefb26f2c26dc515a0a71bc9de7d78f7aa",
		{
			kind: "file",
			name: "\xc3\xbc/\xe6\x97\xa5",
			modified: { seconds: -2, nanoseconds: 250000000 },
			format: "pax",
		},
	],
	[
		"56cf019d8a5f9d39e9b3061610969d2e737a8e4f4231381d60b3f2280c900514",
		{
			kind: "file",
			name: "x",
			modified: { seconds: 5, nanoseconds: 500000000 },
			accessed: { seconds: 1, nanoseconds: 1 },
		},
	],
	[
		"e247ac600cae4e33c6f131b5844d8cb4ccddabba9ed7917ba4ac68dd4e61747f",
		{ kind: "block-device", name: "dev/sda", deviceMajor: 8, deviceMinor: 1, mode: 432, format: "pax" },
	],
	[
		"f5e293ffb4cfad499fc1b2217c5237da0716c3077464de061395a5b73d93842e",
		{
			kind: "directory",
			name: "gggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggg/",
			uid: -1,
			modified: { seconds: 1099511627776, nanoseconds: 0 },
			format: "gnu",
		},
	],
	[
		"eed9dce14e3f349bc7792dcad28ff939c1b1d665ec0f99d7ef8e75fe8c5e45ab",
		{
			kind: "file",
			name: "bin/ping",
			size: 10,
			mode: 493,
			format: "pax",
			records: new Map([["SCHILY.xattr.security.capability", "\x01\0\0\x02\0\x04\0\0"]]),
		},
	],
];

test("encodeHeader writes the bytes that Go writes", () => {
	for (const [sha256, header] of golden) {
		assert.equal(hash("sha256", encodeHeader(tarHeader(header))), sha256, JSON.stringify(header));
	}
});

test("encodeHeader refuses what no format can say", () => {
	for (const header of [
		tarHeader({ kind: "file", name: "a/" }),
		tarHeader({ kind: "file", name: "a\0b" }),
		tarHeader({ kind: "file", name: "a", mode: -1, format: "pax" }),
		tarHeader({ kind: "file", name: "a", uid: 2 ** 21, format: "ustar" }),
		tarHeader({ kind: "file", name: "a", records: new Map([["a=b", "c"]]) }),
		tarHeader({ kind: "file", name: "a", records: new Map([["a", "c"]]), format: "gnu" }),
		tarHeader({ kind: "file", name: "a", records: new Map([["a", "x".repeat(1 << 20)]]) }),
	]) {
		assert.throws(
			() => encodeHeader(header),
			(error) => hasCode(error, "invalid-argument"),
		);
	}
});

test("what was written is read again, in chunks of any size", () => {
	const headers: readonly (TarHeader & { readonly data?: string })[] = [
		tarHeader({ kind: "directory", name: "d/", mode: 0o1777 }),
		tarHeader({
			kind: "symlink",
			name: bytesOf("ünï/日本"),
			linkName: bytesOf("é".repeat(90)),
			format: "pax",
			modified: { seconds: -5, nanoseconds: 123_456_789 },
			accessed: { seconds: 2 ** 34, nanoseconds: 500_000_000 },
		}),
		tarHeader({
			kind: "character-device",
			name: "c",
			deviceMajor: 1,
			deviceMinor: 3,
			uid: 4_000_000_000,
			gid: 2_097_152,
		}),
		tarHeader({ kind: "hardlink", name: `${"a/".repeat(120)}x`, linkName: "d", userName: "root" }),
		tarHeader({ kind: "fifo", name: "raw\xff\xfe" }),
		tarHeader({
			kind: "directory",
			name: `${"n".repeat(150)}/`,
			format: "gnu",
			uid: -1,
			modified: { seconds: 2 ** 40, nanoseconds: 0 },
		}),
		tarHeader({ kind: "file", name: "x", records: new Map([["SCHILY.xattr.user.x", "\0\xff="]]) }),
	];
	const archive = makeTar(...headers, { name: "content", data: "x".repeat(1500) });
	for (const chunkBytes of [1 << 20, 512, 511, 7]) {
		const entries = readTar(archive, chunkBytes);
		assert.equal(entries.length, headers.length + 1);
		assert.equal(entries.at(-1)?.data.toString(), "x".repeat(1500));
		for (const [index, header] of headers.entries()) {
			const { records, format, ...found } = entries[index]?.header ?? header;
			const { records: _, format: __, ...wanted } = header;
			assert.deepEqual(found, wanted);
			assert.ok([...header.records].every(([key, value]) => records.get(key) === value));
			assert.notEqual(format, "unknown");
		}
	}
});

test("archives of GNU tar in all formats are read, sparse ones too", () => {
	const source = join(folder, "source");
	const long = "n".repeat(90);
	mkdirSync(join(source, long), { recursive: true });
	writeFileSync(join(source, "file"), "hello");
	writeFileSync(join(source, long, "m"), "long");
	linkSync(join(source, "file"), join(source, "hard"));
	symlinkSync("file", join(source, "soft"));
	writeFileSync(join(source, "sparse"), "");
	truncateSync(join(source, "sparse"), 5_000_000);
	const fd = openSync(join(source, "sparse"), "r+");
	for (let piece = 0; piece < 30; piece++) {
		writeSync(fd, `piece ${piece}`, piece * 100_000);
	}
	closeSync(fd);
	for (const args of [
		["--format=gnu"],
		["--format=oldgnu"],
		["--format=ustar"],
		["--format=v7"],
		["--format=pax"],
		["--format=gnu", "-S"],
		["--format=pax", "-S", "--sparse-version=0.0"],
		["--format=pax", "-S", "--sparse-version=0.1"],
		["--format=pax", "-S", "--sparse-version=1.0"],
	]) {
		const archive = execFileSync("tar", ["-C", source, "--sort=name", ...args, "-cf", "-", "."], {
			maxBuffer: 1 << 28,
		});
		const entries = new Map(readTar(archive, 10_000).map((entry) => [entry.header.name, entry]));
		const names = ["./", "./file", "./hard", `./${long}/`, `./${long}/m`, "./soft", "./sparse"];
		assert.deepEqual([...entries.keys()].sort(), names.sort(), args.join(" "));
		assert.equal(entries.get("./hard")?.header.linkName, "./file");
		assert.equal(entries.get("./file")?.data.toString(), "hello");
		const sparse = entries.get("./sparse");
		assert.equal(sparse?.header.size, 5_000_000);
		assert.equal(sparse?.data.length, 5_000_000);
		assert.equal(sparse?.data.toString("utf8", 2_900_000, 2_900_008), "piece 29");
	}
});

test("GNU tar reads what we write", () => {
	const name = `${"d".repeat(120)}/${"f".repeat(120)}`;
	const archive = makeTar(
		{ kind: "directory", name: `${"d".repeat(120)}/`, mode: 0o755 },
		{ name, data: "content", format: "pax", modified: { seconds: 1, nanoseconds: 5 } },
		{ kind: "symlink", name: bytesOf("ü"), linkName: name },
	);
	const listing = execFileSync("tar", ["tf", "-"], {
		input: archive,
		encoding: "utf8",
		env: { ...process.env, LC_ALL: "C.UTF-8" },
	});
	assert.match(listing, new RegExp(`^${"d".repeat(120)}/\n${name}\n(ü|\\\\303\\\\274)\n$`));
});

test("a broken archive is an error that says where", () => {
	const good = makeTar({ name: "first", data: "x".repeat(600) }, { name: "second", data: "y" });
	const damaged = (change: (bytes: Buffer) => void): Buffer => {
		const bytes = Buffer.from(good);
		change(bytes);
		return bytes;
	};
	const pax = makeTar({ name: "p".repeat(200) });
	const cases: readonly (readonly [string, Uint8Array, RegExp])[] = [
		["cut in content", good.subarray(0, 700), /"first": unexpected EOF/],
		["cut in a header", good.subarray(0, 1600), /"first": unexpected EOF/],
		["checksum", damaged((bytes) => bytes.fill(1, 1536, 1540)), /at byte 1536.*checksum/],
		["half an end", damaged((bytes) => bytes.fill(1, bytes.length - 512)), /empty block is followed/],
		["record", Buffer.from(pax).fill("9", 512, 513), /PAX record is malformed/],
		["no tar", Buffer.alloc(2000, "text "), /octal|checksum/],
	];
	for (const [what, bytes, message] of cases) {
		assert.throws(
			() => readTar(bytes),
			(error: Error) => hasCode(error, "data-loss") && message.test(error.message),
			what,
		);
	}
	// As for Go: no closing blocks, or no last padding, is no damage.
	assert.equal(readTar(good.subarray(0, good.length - 1024)).length, 2);
	assert.equal(readTar(good.subarray(0, good.length - 1024 - 511)).length, 2);
	assert.equal(readTar(Buffer.alloc(0)).length, 0);
});

test("meta data beyond the limit is refused before it is kept", () => {
	const header = Buffer.from(encodeHeader(tarHeader({ kind: "file", name: "x", size: (1 << 20) + 1 })));
	for (const flag of ["x", "g", "L", "K"]) {
		header.write(flag, 156, "latin1");
		let sum = 0;
		header.fill(" ", 148, 156);
		for (const byte of header) {
			sum += byte;
		}
		header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
		assert.throws(() => readTar(header), /limit is 1048576/);
	}
});

test("attributes are found in records of star and libarchive", () => {
	const header = tarHeader({
		kind: "file",
		name: "x",
		records: new Map([
			["SCHILY.xattr.user.both", "raw\0"],
			["LIBARCHIVE.xattr.user.both", Buffer.from("other").toString("base64")],
			["LIBARCHIVE.xattr.user.a%20b", Buffer.from("spaced").toString("base64")],
		]),
	});
	const found = [...xattrsOf(header)].map(([name, value]) => [name, Buffer.from(value).toString()]);
	assert.deepEqual(found.sort(), [
		["user.a b", "spaced"],
		["user.both", "raw\0"],
	]);
});

test("tarEntry pads its content and judges its length", async () => {
	const header = tarHeader({ kind: "file", name: "x", size: 5 });
	const parts: Uint8Array[] = [];
	for await (const part of tarEntry(header, [Buffer.from("hel"), Buffer.from("lo")])) {
		parts.push(part);
	}
	assert.equal(Buffer.concat(parts).length, 1024);
	for (const content of ["long content", "x"]) {
		await assert.rejects(async () => {
			for await (const _ of tarEntry(header, [Buffer.from(content)])) {
				// Only the end matters.
			}
		}, /header says 5/);
	}
});

test("cleanPath does what Go's path.Clean does", () => {
	for (const [path, clean] of [
		["", "."],
		["a/b", "a/b"],
		["a//b/./../c/", "a/c"],
		["/../a", "/a"],
		["../../a/..", "../.."],
		["/", "/"],
		["./", "."],
		["a/..", "."],
		["..a/b..", "..a/b.."],
	] as const) {
		assert.equal(cleanPath(path), clean);
	}
});

test("names that are not UTF-8 survive as byte strings", () => {
	assert.equal(textOf(bytesOf("日本")), "日本");
	assert.equal(bytesOf("é"), "\xc3\xa9");
});
