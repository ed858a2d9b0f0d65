import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { DaemonBench, requireClients } from "./support/daemon.ts";
import { busyboxBase } from "./support/slipway.ts";

before(requireClients);

/** The last steps' trees are made of layers that no step of theirs looks into. */
const Dockerfile = `FROM base AS one
RUN cat /proc/sys/kernel/random/uuid > /one
FROM base
COPY --link --from=one /one /two
RUN --mount=type=cache,target=/unused cat /proc/sys/kernel/random/uuid > /three
`;

/** One byte of each small layer is another one. */
function damage(dir: string): void {
	for (const name of readdirSync(dir)) {
		const bytes = readFileSync(join(dir, name));
		if (bytes.length < 10_000 && bytes.readUInt16BE(0) === 0x1f8b) {
			bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 0xff;
			writeFileSync(join(dir, name), bytes);
		}
	}
}

test("docker buildx: damaged layers of an imported cache that only the output needs are made again", async () => {
	await using bench = new DaemonBench();
	await bench.startDaemon();
	const context = bench.context({ Dockerfile });
	const buildx = ["docker-buildx", "--builder", "x"];
	await bench.client(["docker-buildx", "create", "--name", "x", "--driver", "remote", bench.address]);
	const cache = join(bench.dir, "cache");
	const build = async (...args: readonly string[]): Promise<string> =>
		(await bench.client([...buildx, "build", "--progress=plain", ...busyboxBase, ...args, context])).stderr;
	await build("--cache-to", `type=local,dest=${cache},mode=max`);
	damage(join(cache, "blobs/sha256"));
	const archive = join(bench.dir, "image.tar");
	const tree = join(bench.dir, "tree");
	for (const output of [`type=oci,dest=${archive}`, `type=local,dest=${tree}`]) {
		await bench.client([...buildx, "prune", "--all", "--force"]);
		const said = await build("--cache-from", `type=local,src=${cache}`, "--output", output);
		assert.match(said, /COPY --link --from=one .*\n#\d+ CACHED/, "was a hit");
		assert.match(said, /RUN --mount=type=cache.*\n#\d+ DONE/, "was made again");
		assert.match(said, /an imported cache is damaged, what it was used for is built again/);
	}
	assert.match(readFileSync(join(tree, "two"), "utf8"), /^[\da-f-]{36}\n$/);
	assert.match(readFileSync(join(tree, "three"), "utf8"), /^[\da-f-]{36}\n$/);
});
