import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { startDocker, startPodman, type TestEngine } from "./support/engines.ts";
import { busyboxBase, Workbench } from "./support/slipway.ts";

/** Of an image that has a base of 1 MB below a layer of some bytes. */
const wholeBytes = 500_000;
const smallBytes = 100_000;

async function loadTwice(bench: Workbench, engine: TestEngine, tag: string): Promise<void> {
	const context = bench.context({ Dockerfile: 'FROM base\nCOPY x /x\nCMD ["cat", "/x"]\n', x: "one" });
	const env = { DOCKER_HOST: engine.host };
	const args = [...busyboxBase, "-t", tag, "--iidfile", "iid", "--load", context];
	await bench.build(args, { env });
	assert.equal(engine.loads.length, 1);
	assert.ok((engine.loads[0] ?? 0) > wholeBytes, `${engine.loads}`);
	writeFileSync(join(context, "x"), "another");
	await bench.build(args, { env });
	assert.equal(engine.loads.length, 2);
	assert.ok((engine.loads[1] ?? 0) < smallBytes, `only what it lacks is sent: ${engine.loads}`);
	const image = (await engine.get(`/images/${encodeURIComponent(tag)}/json`)) as {
		readonly RootFS: { readonly Layers: readonly string[] };
		readonly Config: { readonly Cmd: readonly string[] };
	};
	assert.equal(image.RootFS.Layers.length, 2);
	assert.deepEqual(image.Config.Cmd, ["cat", "/x"]);
}

test("--load: into Docker, which gets only the layers that it lacks", async () => {
	using bench = new Workbench();
	await using engine = await startDocker(bench.dir, "classic");
	await loadTwice(bench, engine, "loaded/classic:1");
	const several = bench.context({ Dockerfile: "FROM scratch\nCOPY x /\n", x: "" });
	const result = await bench.run(["--platform", "linux/amd64,linux/arm64", "-t", "a", "--load", several], {
		env: { DOCKER_HOST: engine.host },
	});
	assert.match(result.stderr, /docker exporter does not currently support exporting manifest lists/);
});

test("--load: into Docker with containerd's image store, which takes images of several platforms", async () => {
	using bench = new Workbench();
	await using engine = await startDocker(bench.dir, "containerd");
	await loadTwice(bench, engine, "loaded/containerd:1");
	const several = bench.context({ Dockerfile: "FROM scratch\nCOPY x /\n", x: "" });
	await bench.build(["--platform", "linux/amd64,linux/arm64", "-t", "several:1", "--load", several], {
		env: { DOCKER_HOST: engine.host },
	});
	assert.ok(await engine.get("/images/several:1/json"));
});

test("--load: into podman through its socket", async () => {
	using bench = new Workbench();
	await using engine = await startPodman(bench.dir);
	await loadTwice(bench, engine, "localhost/loaded/podman:1");
});
