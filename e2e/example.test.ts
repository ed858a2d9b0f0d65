import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { unpackImage } from "./support/image.ts";
import { debianLayout, projectRoot, Workbench } from "./support/slipway.ts";
import { tool } from "./support/tools.ts";

const bench = new Workbench();
after(() => bench[Symbol.dispose]());

test("the example is built on Debian and its program runs in podman; skopeo and umoci read the image", async () => {
	const docker = bench.path("greeter.tar");
	const layout = bench.path("layout");
	const context = join(projectRoot, "examples/greeter");
	await bench.build([
		"--build-context",
		`debian:bookworm=oci-layout://${debianLayout}:bookworm`,
		"--build-arg",
		"VERSION=e2e",
		"-t",
		"greeter:e2e",
		"-o",
		`type=docker,dest=${docker}`,
		"-o",
		`type=oci,tar=false,dest=${layout}`,
		context,
	]);
	const env = { IMAGE_ARCHIVE: docker, PODMAN_STATE: bench.path("podman") };
	try {
		const printed = tool(join(projectRoot, "scripts/podman"), ["run", "--rm", "greeter:e2e", "podman"], {
			env,
		});
		assert.equal(
			printed,
			"greeter e2e, user id 10001\nBonjour, podman!\nCiao, podman!\nGuten Tag, podman!\nHello, podman!\nHola, podman!\n",
		);
	} finally {
		tool(join(projectRoot, "scripts/podman"), ["system", "reset", "--force"], { env });
	}
	const inspected = JSON.parse(tool("skopeo", ["inspect", `oci:${layout}:e2e`]));
	assert.equal(inspected.Labels["org.opencontainers.image.title"], "greeter");
	const rootfs = unpackImage(layout, "e2e", bench.path("unpacked"));
	assert.equal(readFileSync(join(rootfs, "usr/local/bin/greeter")).subarray(1, 4).toString(), "ELF");
});
