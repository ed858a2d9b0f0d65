import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { bindMount, unmount } from "../src/sys/mount.ts";
import { busyboxLayout, debianLayout, foreignLayout, projectRoot } from "./support/slipway.ts";

/** Users of this machine that are made for the test: one with subordinate ids, one without. */
const directory = mkdtempSync(join(tmpdir(), "slipway-rootless-"));
const program = join(directory, "project");
const many = `slipway-m${process.pid}`;
const single = `slipway-s${process.pid}`;

function root(command: string, args: readonly string[]): void {
	const { status, stderr, error } = spawnSync(command, args, { encoding: "utf8" });
	assert.equal(status, 0, `${command} ${args.join(" ")}: ${error ?? stderr}`);
}

before(() => {
	chmodSync(directory, 0o755);
	// Wherever the project lies, users need not be allowed to go there.
	mkdirSync(program);
	bindMount(projectRoot, program);
	for (const [name, layout] of [
		["busybox", busyboxLayout],
		["debian", debianLayout],
		["foreign", foreignLayout],
	] as const) {
		cpSync(layout, join(directory, name), { recursive: true });
	}
	root("chmod", [
		"-R",
		"a+rX",
		join(directory, "busybox"),
		join(directory, "debian"),
		join(directory, "foreign"),
	]);
	for (const user of [many, single]) {
		root("useradd", ["--home-dir", join(directory, user), "--create-home", "--shell", "/bin/sh", user]);
	}
	for (const file of ["/etc/subuid", "/etc/subgid"]) {
		const lines = readFileSync(file, "utf8").split("\n");
		writeFileSync(file, lines.filter((line) => !line.startsWith(`${single}:`)).join("\n"));
	}
	const ids = ["--add-subuids", "700000-765535", "--add-subgids", "700000-765535"];
	if (!readFileSync("/etc/subuid", "utf8").includes(`${many}:`)) {
		root("usermod", [...ids, many]);
	}
});

after(() => {
	for (const user of [many, single]) {
		spawnSync("userdel", [user]);
	}
	unmount(program, { detach: true });
	rmSync(directory, { recursive: true, force: true });
});

interface Said {
	readonly code: number | null;
	readonly stdout: string;
	readonly stderr: string;
}

function slipway(user: string, args: readonly string[], { background = false } = {}): Said {
	const env = [
		`HOME=${join(directory, user)}`,
		`PATH=${process.env["PATH"]}`,
		...(background ? [] : ["SLIPWAY_IN_PROCESS=1"]),
	];
	const command = ["env", "-i", ...env, join(program, "bin/slipway"), ...args];
	const { status, stdout, stderr } = spawnSync(
		"setpriv",
		[`--reuid=${user}`, `--regid=${user}`, "--init-groups", ...command],
		{ encoding: "utf8", cwd: join(directory, user), timeout: 120_000 },
	);
	return { code: status, stdout, stderr };
}

function context(user: string, name: string, dockerfile: string): string {
	const path = join(directory, user, name);
	mkdirSync(path);
	writeFileSync(join(path, "Dockerfile"), dockerfile);
	return path;
}

const base = (name: string): readonly string[] => [
	"--build-context",
	`base=oci-layout://${directory}/${name}`,
];

test("a user with subordinate ids builds as root does: owners, users, networks, apt-get install", () => {
	const path = context(
		many,
		"debian-context",
		`FROM base
RUN apt-get update && apt-get install -y --no-install-recommends hello && hello
RUN useradd -m someone && su someone -c 'id -un > ~/me' && stat -c %U /home/someone/me
RUN --network=none grep -c : /proc/net/dev && ! grep -q eth /proc/net/dev
USER someone
RUN test "$(id -un)" = someone
`,
	);
	const { code, stderr } = slipway(many, ["build", ...base("debian"), "-o", "type=oci,dest=image.tar", path]);
	assert.equal(code, 0, stderr);
	assert.match(stderr, /Hello, world!/);
	assert.match(stderr, /^#\d+ [\d.]+ someone$/m);
	const list = spawnSync("sh", ["-c", `tar -xOf ${join(directory, many)}/image.tar index.json`], {
		encoding: "utf8",
	});
	assert.match(list.stdout, /"mediaType":"application\/vnd.oci.image.manifest/);
});

test("the native snapshotter and the background builder work for a user too", () => {
	const path = context(
		many,
		"native-context",
		"FROM base\nRUN touch /f && chown 12:34 /f\nRUN stat -c %u:%g /f\n",
	);
	const native = slipway(many, [
		"build",
		"--snapshotter",
		"native",
		"--root",
		"native",
		...base("busybox"),
		path,
	]);
	assert.match(native.stderr, /^#\d+ [\d.]+ 12:34$/m);
	const args = ["build", ...base("busybox"), path];
	const first = slipway(many, args, { background: true });
	const second = slipway(many, args, { background: true });
	const stopped = slipway(many, ["stop"], { background: true });
	assert.match(first.stderr, /^#\d+ [\d.]+ 12:34$/m);
	assert.match(second.stderr, /RUN stat -c %u:%g \/f\n#\d+ CACHED/);
	assert.equal(stopped.code, 0);
});

test("a user with one id builds, is told what is lost, and what a step cannot do", () => {
	const path = context(
		single,
		"single-context",
		"FROM base\nRUN apt-get --version | head -1 && stat -c %U /usr/bin/apt-get\nCOPY --chown=33 Dockerfile /copied\nRUN stat -c %u /copied\n",
	);
	const built = slipway(single, ["build", ...base("debian"), path]);
	assert.equal(built.code, 0, built.stderr);
	assert.match(built.stderr, /WARNING: all files of the image will belong to root: user \S+ has no ids in/);
	assert.match(built.stderr, /^#\d+ [\d.]+ 0$/m);
	const other = context(single, "user-context", "FROM base\nUSER 33\nRUN true\n");
	const failed = slipway(single, ["build", ...base("debian"), other]);
	assert.equal(failed.code, 1);
	assert.match(
		failed.stderr,
		/a step cannot run as user 33:33 here, where there is only one user id: add subordinate ids, see 'slipway doctor'/,
	);
});

test("foreign platforms run for a user as they do for root", () => {
	const path = context(
		many,
		"foreign-context",
		"FROM base\nRUN uname -m | tr a-z A-Z && touch /f && chown 12:34 /f && stat -c %u:%g /f\n",
	);
	const [platform, machine] =
		process.arch === "arm64" ? ["linux/amd64", "X86_64"] : ["linux/arm64", "AARCH64"];
	const { code, stderr } = slipway(many, ["build", ...base("foreign"), "--platform", platform, path]);
	assert.equal(code, 0, stderr);
	assert.match(stderr, new RegExp(`^#\\d+ [\\d.]+ ${machine}\\n#\\d+ [\\d.]+ 12:34$`, "m"));
});

test("doctor tells the three modes apart", () => {
	assert.match(slipway(many, ["doctor"]).stdout, /^Mode: rootless\. .*\n\nok +user namespaces/);
	const lacking = slipway(single, ["doctor"]);
	assert.match(lacking.stdout, /^Mode: rootless with one id\./);
	assert.match(
		lacking.stdout,
		/lacks +user ids +only one\n +user \S+ has no ids in \/etc\/subuid and \/etc\/subgid: root can/,
	);
	assert.equal(lacking.code, 0);
	const own = spawnSync(join(projectRoot, "bin/slipway"), ["doctor", "--json"], { encoding: "utf8" });
	assert.equal(JSON.parse(own.stdout).mode.name, "root");
});
