import assert from "node:assert/strict";
import {
	cpSync,
	existsSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	rmSync,
	statSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { findDetail, SlipwayError } from "../errors/errors.ts";
import { listMounts, setPropagation } from "../sys/mount.ts";
import { unshare } from "../sys/namespace.ts";
import { hideUnifiedHierarchy } from "./cgroups.ts";
import type { Executor, RunOptions } from "./executor.ts";
import { createNetworks, type Networks } from "./networks.ts";
import { createOciExecutor } from "./oci-executor.ts";
import { findRuntime } from "./runtime.ts";

const busybox = "/bin/busybox";
let dir = "";
let rootfs = "";
let executor: Executor;
let networks: Networks;

before(() => {
	assert.ok(existsSync(busybox), "needs busybox-static");
	dir = mkdtempSync(join(tmpdir(), "slipway-executor-"));
	rootfs = join(dir, "rootfs");
	for (const name of ["bin", "etc", "tmp", "data"]) {
		mkdirSync(join(rootfs, name), { recursive: true });
	}
	cpSync(busybox, join(rootfs, "bin/busybox"));
	for (const applet of [
		"sh",
		"cat",
		"id",
		"sleep",
		"ls",
		"echo",
		"true",
		"env",
		"mount",
		"ip",
		"mknod",
		"touch",
	]) {
		symlinkSync("busybox", join(rootfs, "bin", applet));
	}
	writeFileSync(join(rootfs, "etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n");
	writeFileSync(join(rootfs, "etc/group"), "root:x:0:\napp:x:1001:\nextra:x:1002:app\n");
	networks = createNetworks(
		{ mode: "bridge" },
		{ root: join(dir, "network"), searchPath: process.env["PATH"] ?? "", debug: () => {} },
	);
	executor = createOciExecutor({
		networks,
		root: join(dir, "executor"),
		findRuntime: () => findRuntime({ searchPath: process.env["PATH"] ?? "", stateDir: join(dir, "runtime") }),
		beforeMounts: once(() => {
			unshare(["mount"]);
			setPropagation("/", "rslave");
			hideUnifiedHierarchy();
		}),
	});
});

after(async () => {
	await networks[Symbol.asyncDispose]();
	rmSync(dir, { recursive: true, force: true });
});

function once(work: () => void): () => void {
	let done = false;
	return () => {
		if (!done) {
			done = true;
			work();
		}
	};
}

let counter = 0;

async function run(
	script: string,
	options: Partial<RunOptions> = {},
): Promise<{ code: number; text: string }> {
	let text = "";
	const status = await executor.run({
		id: `t${process.pid}x${counter++}`,
		root: { mounts: [{ type: "bind", source: rootfs, options: ["rbind"] }], readonly: false },
		mounts: [],
		process: { args: ["/bin/sh", "-c", script], env: ["PATH=/bin"], cwd: "/", user: "" },
		network: "none",
		security: "sandbox",
		extraHosts: [],
		ulimits: [],
		platform: { os: "linux", architecture: "amd64" },
		removeMountStubsRecursive: true,
		onOutput: (_, chunk) => {
			text += new TextDecoder().decode(chunk);
		},
		signal: new AbortController().signal,
		...options,
	});
	return { code: status.code, text };
}

test("run gives output and exit code, and leaves nothing behind", async () => {
	const result = await run("echo out; echo err >&2; exit 7");
	assert.equal(result.code, 7);
	assert.deepEqual(result.text.split("\n").sort(), ["", "err", "out"]);
	assert.deepEqual(readdirSync(join(dir, "executor/containers")), []);
	assert.deepEqual(listMounts(dir), []);
	assert.equal(existsSync(join(rootfs, "etc/hosts")), false);
	assert.equal(
		existsSync(join(rootfs, "proc")),
		true,
		"the runtime's own mount points stay, as with BuildKit",
	);
});

test("run leaves the mount points that every container has with plain modes, whichever runtime made them", async () => {
	assert.equal((await run("true")).code, 0);
	for (const name of ["dev", "proc", "sys"]) {
		const { mode, uid, gid } = statSync(join(rootfs, name));
		assert.deepEqual([name, mode & 0o7777, uid, gid], [name, 0o755, 0, 0]);
		assert.deepEqual(readdirSync(join(rootfs, name)), []);
	}
});

test("run looks up users and groups in the image, and makes the working directory theirs", async () => {
	const result = await run("id; ls -ldn .", {
		process: { args: ["/bin/sh", "-c", "id; ls -ldn ."], env: ["PATH=/bin"], cwd: "/work/deep", user: "app" },
	});
	assert.match(result.text, /uid=1000\(app\) gid=1001\(app\) groups=1001\(app\),1002\(extra\)/);
	assert.match(result.text, /drwxr-xr-x\s+\d+ 1000\s+1001/);
	await assert.rejects(
		run("true", { process: { args: ["true"], env: [], cwd: "/", user: "nobody" } }),
		/unable to find user nobody: no matching entries in passwd file/,
	);
});

test("run mounts trees, a path in a tree, tmpfs and host files, and removes the stubs", async () => {
	const tree = join(dir, "tree");
	mkdirSync(join(tree, "sub"), { recursive: true });
	writeFileSync(join(tree, "sub/file"), "in the tree");
	symlinkSync("/etc/shadow", join(tree, "escape"));
	writeFileSync(join(dir, "secret"), "hidden");
	const mounts = [{ type: "bind", source: tree, options: ["rbind"] }];
	const result = await run("cat /a/b/sub/file /one; touch /a/b/x 2>&1; echo t > /t/f; cat /t/f /s", {
		mounts: [
			{ target: "/a/b", readonly: true, source: { kind: "tree", mounts, selector: "/" } },
			{ target: "/one", readonly: true, source: { kind: "tree", mounts, selector: "sub/file" } },
			{ target: "/t", readonly: false, source: { kind: "tmpfs", sizeBytes: 65536 } },
			{
				target: "/s",
				readonly: true,
				source: { kind: "host", path: join(dir, "secret"), options: ["nosuid"] },
			},
		],
	});
	assert.match(result.text, /in the treein the tree/);
	assert.match(result.text, /Read-only file system/);
	assert.match(result.text, /hidden/);
	for (const stub of ["a", "one", "t", "s"]) {
		assert.equal(existsSync(join(rootfs, stub)), false, stub);
	}
	await assert.rejects(
		run("true", {
			mounts: [{ target: "/m", readonly: true, source: { kind: "tree", mounts, selector: "none" } }],
		}),
		/failed to mount \/m: none/,
	);
	await assert.rejects(
		run("cat /m", {
			mounts: [{ target: "/m", readonly: true, source: { kind: "tree", mounts, selector: "escape" } }],
		}),
		/failed to mount \/m/,
	);
});

test("run shields the host: masked paths, devices, no network, capabilities", async () => {
	const result = await run(
		"cat /proc/kcore | /bin/busybox wc -c; mknod /tmp/sda b 8 0 && cat /tmp/sda; /bin/busybox ip -o link | /bin/busybox wc -l; mount -t tmpfs x /tmp; /bin/busybox grep -c localhost /etc/hosts; /bin/busybox hostname",
	);
	assert.match(result.text, /^0$/m);
	assert.match(result.text, /Operation not permitted/);
	assert.match(result.text, /^1$/m);
	assert.match(result.text, /mount: (permission denied|mounting x)/);
	assert.match(result.text, /^buildkitsandbox$/m);
	rmSync(join(rootfs, "tmp/sda"), { force: true });
});

test("run says so when the program does not exist", async () => {
	await assert.rejects(
		run("", { process: { args: ["/bin/nope"], env: [], cwd: "/", user: "" } }),
		(error: unknown) =>
			error instanceof SlipwayError &&
			/^exit code: 1: .* could not start the process: .*nope/.test(error.message) &&
			findDetail(error, "exit")?.code === 1,
	);
	assert.deepEqual(readdirSync(join(dir, "executor/containers")), []);
});

test("run kills everything in the container when it is aborted", async () => {
	const abort = new AbortController();
	const started = Promise.withResolvers<void>();
	const running = run("", {
		process: {
			args: ["/bin/sh", "-c", "trap '' TERM; sleep 1000 & echo go; sleep 1000"],
			env: ["PATH=/bin"],
			cwd: "/",
			user: "",
		},
		signal: abort.signal,
		onOutput: () => started.resolve(),
	});
	await started.promise;
	abort.abort(new Error("enough"));
	await assert.rejects(
		running,
		(error: unknown) => error instanceof SlipwayError && error.code === "canceled",
	);
	assert.deepEqual(readdirSync(join(dir, "executor/containers")), []);
	assert.equal(existsSync(join(dir, "runtime")) ? readdirSync(join(dir, "runtime")).length : 0, 0);
	assert.equal(readFileSync("/proc/mounts", "utf8").includes(dir), false);
});
