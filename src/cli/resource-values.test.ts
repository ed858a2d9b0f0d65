import assert from "node:assert/strict";
import { test } from "node:test";
import { buildFlags } from "./build-flags.ts";
import { parseFlags } from "./flags.ts";
import { resourceOptions } from "./resource-values.ts";

function options(...argv: readonly string[]): Readonly<Record<string, string>> {
	return resourceOptions(parseFlags([...argv, "."], buildFlags));
}

test("resourceOptions: docker's flags and --resource are the same limits", () => {
	assert.deepEqual(options(), {});
	const expected = {
		memory: "67108864",
		memswap: "-1",
		cpushares: "512",
		cpuperiod: "50000",
		cpuquota: "25000",
		cpusetcpus: "0-1",
		cpusetmems: "0",
	};
	assert.deepEqual(
		options(
			...["-m", "64m", "--memory-swap=-1", "-c", "512", "--cpu-period", "50000", "--cpu-quota", "25000"],
			...["--cpuset-cpus", "0-1", "--cpuset-mems", "0"],
		),
		expected,
	);
	const resources = ["memory=64m", "memory-swap=-1", "cpu-shares=512", "cpu-period=50000", "cpu-quota=25000"];
	assert.deepEqual(
		options(...[...resources, "cpuset-cpus=0-1", "cpuset-mems=0"].flatMap((each) => ["--resource", each])),
		expected,
	);
});

test("resourceOptions: zero and empty are no limit", () => {
	assert.deepEqual(options("--memory", "0", "--cpu-quota", "0", "--cpuset-cpus", "", "--cpu-shares=-1"), {});
});

test("resourceOptions: processors are a quota", () => {
	assert.deepEqual(options("--cpus", "1.5"), { cpuperiod: "100000", cpuquota: "150000" });
	assert.throws(() => options("--cpus", "many"), /invalid value "many" for --cpus/);
	assert.throws(() => options("--cpus", "1", "--cpu-quota", "5"), /cannot be used together/);
});

test("resourceOptions: what is no limit is named", () => {
	assert.throws(() => options("--memory", "big"), /invalid size "big" for --memory/);
	assert.throws(() => options("--resource", "memory=big"), /invalid size "big" for --resource memory/);
	assert.throws(() => options("--resource", "disk=1"), /unknown resource "disk"/);
	assert.throws(() => options("--resource", "memory"), /invalid resource "memory", expected key=value/);
	assert.throws(() => options("--cpu-shares", "x"), /invalid value "x" for --cpu-shares/);
});
