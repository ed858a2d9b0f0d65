import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { cgroupVersion } from "./cgroups.ts";
import { createStepCgroup, removeStepCgroup } from "./step-cgroup.ts";

/** A directory that looks like the mount of version 2; `rmdir` of a group with files in it is the kernel's only, so they go first. */
function versionTwo(controllers: string): string {
	const root = mkdtempSync(join(tmpdir(), "slipway-cgroup-"));
	writeFileSync(join(root, "cgroup.controllers"), `${controllers}\n`);
	return root;
}

test("version 2: the count of the group around the runtime's tells", () => {
	const root = versionTwo("cpu memory pids");
	try {
		const resources = { memory: 1 << 20, cpuQuota: 1000 };
		using group = createStepCgroup({ version: "v2", parent: "/slipway", id: "a", resources, root });
		assert.equal(group.path, "/slipway/a/step");
		assert.equal(group.outerPath, "/slipway/a");
		assert.deepEqual(group.resources, resources);
		assert.equal(group.wasOutOfMemory(), false);
		mkdirSync(join(root, "slipway/a/step"), { recursive: true });
		const events = join(root, "slipway/a/memory.events");
		writeFileSync(events, "low 0\nhigh 0\nmax 12\noom 1\noom_kill 0\noom_group_kill 0\n");
		assert.equal(group.wasOutOfMemory(), false);
		writeFileSync(events, "low 0\nhigh 0\nmax 12\noom 1\noom_kill 2\noom_group_kill 0\n");
		assert.equal(group.wasOutOfMemory(), true);
		rmSync(events);
		group[Symbol.dispose]();
		assert.equal(existsSync(join(root, "slipway/a")), false);
	} finally {
		rmSync(root, { recursive: true });
	}
});

test("a limit that the machine's groups do not have is an error that names it", () => {
	const root = versionTwo("cpu pids");
	try {
		const make = (resources: object, version: "v2" | "none" = "v2"): unknown =>
			createStepCgroup({ version, parent: "/slipway", id: "a", resources, root });
		assert.throws(() => make({ memory: 1 }), /no memory controller/);
		assert.throws(() => make({ cpusetCpus: "0" }), /no cpuset controller/);
		assert.throws(() => make({ cpuShares: 2 }, "none"), /no cpu controller/);
		make({ cpuShares: 2 });
		make({}, "none");
	} finally {
		rmSync(root, { recursive: true });
	}
});

test("version 1: limits are set around the runtime's group, and the kernel tells of kills", {
	skip: cgroupVersion() !== "v1",
}, () => {
	const id = `t${process.pid}`;
	const limit = 16 * 1024 * 1024;
	const outer = `/sys/fs/cgroup/memory/slipway-test/${id}`;
	{
		using group = createStepCgroup({
			version: "v1",
			parent: "/slipway-test",
			id,
			resources: { memory: limit, memorySwap: limit, cpuShares: 7 },
		});
		assert.equal(group.path, `/slipway-test/${id}/step`);
		assert.deepEqual(group.resources, { memory: limit + 4096, memorySwap: limit + 4096, cpuShares: 7 });
		assert.equal(readFileSync(`${outer}/memory.limit_in_bytes`, "utf8").trim(), String(limit));
		assert.equal(group.wasOutOfMemory(), false);
	}
	assert.equal(existsSync(outer), false);
	using plain = createStepCgroup({ version: "v1", parent: "/slipway-test", id, resources: { cpuShares: 7 } });
	assert.deepEqual([plain.path, plain.outerPath], [`/slipway-test/${id}`, undefined]);
	removeStepCgroup("/slipway-test");
});
