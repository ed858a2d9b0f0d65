import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { linkSync, mkdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { getXattr, setXattr } from "../src/sys/xattr.ts";
import { DaemonBench, requireClients } from "./support/daemon.ts";

before(requireClients);

/** What a copy must have in common with its source; a directory's size and time are its file system's. */
function listing(path: string): string[] {
	return execFileSync("find", [path, "-mindepth", "1", "-printf", "%P|%y|%m|%s|%T@|%l|%n\n"], {
		encoding: "utf8",
	})
		.split("\n")
		.map((line) => line.replace(/^([^|]*)\|d\|(\d+)\|.*$/, "$1|d|$2"))
		.sort();
}

describe("a session with the unmodified docker buildx", () => {
	const bench = new DaemonBench();
	const buildx = ["docker-buildx", "--builder", "slip"];
	const build = [...buildx, "build", "--progress", "plain"];
	after(() => bench[Symbol.asyncDispose]());
	before(async () => {
		await bench.startDaemon();
		await bench.client(["docker-buildx", "create", "--name", "slip", "--driver", "remote", bench.address]);
	});

	test("a context goes there and back as it is, whole and then what changed", async () => {
		const context = bench.context({ Dockerfile: "FROM scratch\nCOPY . /\n", plain: "plain", empty: "" });
		mkdirSync(join(context, "a/b/c"), { recursive: true });
		mkdirSync(join(context, "a-b"), { mode: 0o1777 });
		writeFileSync(join(context, "a/b/c/large"), Buffer.alloc(5_000_001, "large "));
		writeFileSync(join(context, "a/täst, with + and %41"), "odd name", { mode: 0o4755 });
		writeFileSync(join(context, "a-b/attributes"), "x");
		setXattr(join(context, "a-b/attributes"), "user.note", Buffer.from("kept"));
		linkSync(join(context, "plain"), join(context, "a/second"));
		symlinkSync("../plain", join(context, "a/link"));
		symlinkSync("/etc/passwd", join(context, "outside"));
		utimesSync(join(context, "plain"), 1, 1_234_567_890.125);
		for (let each = 0; each < 2000; each++) {
			writeFileSync(join(context, `a/b/file${each}`), `content of ${each}`);
		}
		const out = join(bench.dir, "out");
		const first = await bench.client([...build, "-o", `type=local,dest=${out}`, context]);
		assert.deepEqual(listing(out), listing(context));
		execFileSync("diff", ["-r", "--no-dereference", context, out]);
		assert.equal(Buffer.from(getXattr(join(out, "a-b/attributes"), "user.note") ?? []).toString(), "kept");
		assert.match(first.stderr, /transferring context: 5\.\d+MB/);

		rmSync(join(context, "a/b/file7"));
		writeFileSync(join(context, "a/b/file8"), "other content");
		writeFileSync(join(context, "new"), "new");
		const changed = join(bench.dir, "changed");
		const second = await bench.client([...build, "-o", `type=local,dest=${changed}`, context]);
		assert.doesNotMatch(second.stderr, /transferring context: [\d.]+MB/);
		assert.deepEqual(listing(changed), listing(context));
		execFileSync("diff", ["-r", "--no-dereference", context, changed]);

		const third = await bench.client([...build, "-o", `type=local,dest=${out}`, context]);
		assert.match(third.stderr, /CACHED/);
	});
});
