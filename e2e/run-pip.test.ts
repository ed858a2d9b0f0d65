import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { debianLayout, Workbench } from "./support/slipway.ts";

const bench = new Workbench();
after(() => bench[Symbol.dispose]());

/** A package index with one package, as pip asks for it; counts how often the package itself is fetched. */
let index: Server;
let downloads = 0;

before(async () => {
	const source = bench.path("slipdemo-1.0");
	mkdirSync(source);
	writeFileSync(
		join(source, "setup.py"),
		"from setuptools import setup\nsetup(name='slipdemo', version='1.0', py_modules=['slipdemo'])\n",
	);
	writeFileSync(join(source, "slipdemo.py"), "value = 'demo'\n");
	const archive = bench.path("slipdemo-1.0.tar.gz");
	assert.equal(spawnSync("tar", ["-C", bench.dir, "-czf", archive, "slipdemo-1.0"]).status, 0);
	index = createServer((request, response) => {
		if (request.url === "/simple/slipdemo/") {
			response.setHeader("content-type", "text/html");
			response.end('<a href="/files/slipdemo-1.0.tar.gz">slipdemo-1.0.tar.gz</a>');
		} else if (request.url === "/files/slipdemo-1.0.tar.gz") {
			downloads++;
			response.setHeader("cache-control", "max-age=365000000, immutable, public");
			response.setHeader("content-type", "application/gzip");
			response.end(readFileSync(archive));
		} else {
			response.statusCode = 404;
			response.end();
		}
	});
	await new Promise<void>((listening) => index.listen(0, "127.0.0.1", listening));
});
after(() => index.close());

test("pip with a cache mount: a step that runs again fetches and builds nothing again", async () => {
	const { port } = index.address() as AddressInfo;
	const context = bench.context({
		Dockerfile: `FROM base AS python
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \\
    rm -f /etc/apt/apt.conf.d/docker-clean && apt-get update -q && \\
    apt-get install -q -y --no-install-recommends python3-pip python3-setuptools python3-wheel
FROM python
ARG ROUND
RUN --network=host --mount=type=cache,target=/root/.cache/pip \\
    pip install --break-system-packages --no-build-isolation --index-url http://127.0.0.1:${port}/simple slipdemo && \\
    python3 -c "import slipdemo; print(slipdemo.value, '$ROUND')"
`,
	});
	const build = (round: string) =>
		bench.build([
			"--build-context",
			`base=oci-layout://${debianLayout}`,
			"--allow",
			"network.host",
			"--build-arg",
			`ROUND=${round}`,
			context,
		]);
	const first = await build("one");
	assert.match(first.stderr, /^#\d+ [\d.]+ demo one$/m);
	assert.match(first.stderr, /Building wheel for slipdemo/);
	assert.equal(downloads, 1);
	const second = await build("two");
	assert.match(second.stderr, /apt-get install .*\n#\d+ CACHED/);
	assert.match(second.stderr, /^#\d+ [\d.]+ demo two$/m);
	assert.match(second.stderr, /Using cached slipdemo/);
	assert.doesNotMatch(second.stderr, /Building wheel for slipdemo/);
	assert.equal(downloads, 1);
});
