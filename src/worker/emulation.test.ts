import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { formatPlatform, type Platform } from "../oci/platform.ts";
import { findEmulator, runnablePlatforms, watchForeignProgram } from "./emulation.ts";

const amd64: Platform = { os: "linux", architecture: "amd64" };
const arm64: Platform = { os: "linux", architecture: "arm64" };

/** What qemu-user-static registers. */
const entry = (machine: string, flags: string, state = "enabled"): string =>
	`${state}\ninterpreter /usr/bin/qemu\nflags: ${flags}\noffset 0\nmagic 7f454c460201010000000000000000000200${machine}\nmask ffffffffffffff00fffffffffffffffffeffffff\n`;

test("runnablePlatforms has what a fixed interpreter is registered for, by the header of programs", (t) => {
	const dir = mkdtempSync(join(tmpdir(), "slipway-binfmt-"));
	t.after(() => rmSync(dir, { recursive: true }));
	const files = {
		status: "enabled\n",
		register: "",
		"any-name": entry("b700", "POCF"),
		"qemu-riscv64": entry("f300", "OC"),
		"qemu-loong64": entry("0201", "F", "disabled"),
		jar: "enabled\ninterpreter /usr/bin/java\nflags: F\nextension .jar\n",
		"qemu-arm":
			"enabled\ninterpreter /q\nflags: F\noffset 0\nmagic 7f454c4601010100000000000000000002002800\nmask ffffffffffffff00fffffffffffffffffeffffff\n",
	};
	for (const [name, text] of Object.entries(files)) {
		writeFileSync(join(dir, name), text);
	}
	const listed = (compat: string): readonly string[] =>
		runnablePlatforms([amd64], { binfmt: dir, compat }).map(formatPlatform);
	assert.deepEqual(listed(join(dir, "none")), ["linux/amd64", "linux/arm64", "linux/arm", "linux/arm/v6"]);
	assert.deepEqual(listed(join(dir, "status")), [
		"linux/amd64",
		"linux/arm64",
		"linux/386",
		"linux/arm",
		"linux/arm/v6",
	]);
	assert.deepEqual(runnablePlatforms([amd64], { binfmt: join(dir, "none"), compat: join(dir, "none") }), [
		amd64,
	]);
});

test("findEmulator looks for BuildKit's and for static QEMU on the path, only for what does not run otherwise", (t) => {
	const dir = mkdtempSync(join(tmpdir(), "slipway-qemu-"));
	t.after(() => rmSync(dir, { recursive: true }));
	mkdirSync(join(dir, "bin"));
	writeFileSync(join(dir, "bin/buildkit-qemu-aarch64"), "");
	const searchPath = `relative:/nowhere:${dir}/bin`;
	assert.deepEqual(findEmulator(arm64, { runnable: [amd64], searchPath }), {
		kind: "mounted",
		mount: {
			target: "/dev/.buildkit_qemu_emulator",
			readonly: true,
			source: { kind: "host", path: join(dir, "bin/buildkit-qemu-aarch64"), options: [] },
		},
		command: "/dev/.buildkit_qemu_emulator",
	});
	writeFileSync(join(dir, "bin/qemu-s390x-static"), "");
	const s390x = findEmulator({ os: "linux", architecture: "s390x" }, { runnable: [amd64], searchPath });
	assert.equal(s390x?.kind, "interpreter");
	// The pattern of qemu-binfmt-conf.sh.
	assert.deepEqual(s390x.kind === "interpreter" && s390x.interpreter, {
		path: join(dir, "bin/qemu-s390x-static"),
		magic: Buffer.from("7f454c4602020100000000000000000000020016", "hex"),
		mask: Buffer.from("ffffffffffffff00fffffffffffffffffffeffff", "hex"),
	});
	assert.equal(findEmulator(arm64, { runnable: [amd64, arm64], searchPath }), undefined);
	assert.equal(findEmulator(amd64, { runnable: [amd64], searchPath }), undefined);
	assert.equal(findEmulator(arm64, { runnable: [amd64], searchPath: "/nowhere" }), undefined);
});

test("watchForeignProgram names the platform only where the kernel did not know a program", () => {
	assert.equal(watchForeignProgram(amd64, [amd64]), undefined);
	const watch = watchForeignProgram(arm64, [amd64]);
	assert.equal(watch?.explain("exit code: 1"), undefined);
	watch?.see(Buffer.from(`${"x".repeat(5000)}exec /bin/sh: exec for`));
	watch?.see(Buffer.from("mat error\n"));
	assert.match(
		watch?.explain("exit code: 1") ?? "",
		/^no support for running processes with linux\/arm64 platform, supported: linux\/amd64; /,
	);
});
