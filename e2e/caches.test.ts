import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type RealRegistry, startRealRegistry } from "../src/registry/real-registry.ts";
import {
	azureLogin,
	ghaToken,
	s3Login,
	startFakeAzure,
	startFakeGha,
	startFakeS3,
} from "../src/remotecache/fake-clouds.fixture.ts";
import { busyboxBase, program, Workbench } from "./support/slipway.ts";
import { tool } from "./support/tools.ts";

/** Steps whose outcome is another one each time they run. */
const files = {
	Dockerfile: `FROM base AS one
WORKDIR /work
RUN cat /proc/sys/kernel/random/uuid > one
COPY a.txt .
RUN cat a.txt /proc/sys/kernel/random/uuid > two
FROM base
RUN cat /proc/sys/kernel/random/uuid > /three
COPY --from=one /work/two /two
COPY sub /sub
RUN cat /two /three /proc/sys/kernel/random/uuid > /four
`,
	"a.txt": "a\n",
	"sub/b.txt": "b\n",
};

let registry: RealRegistry;
const shared = new Workbench();
let context: string;

before(async () => {
	registry = await startRealRegistry();
	context = shared.context(files);
});

after(async () => {
	await registry[Symbol.asyncDispose]();
	shared[Symbol.dispose]();
});

/** What the last step has made, in a builder that knows nothing. */
async function built(args: readonly string[], bench: Workbench = new Workbench()): Promise<Built> {
	try {
		const { stderr } = await bench.build([...busyboxBase, "-o", bench.path("out"), ...args, context]);
		return { stderr, four: readFileSync(bench.path("out/four"), "utf8") };
	} finally {
		if (bench !== shared) {
			bench[Symbol.dispose]();
		}
	}
}

interface Built {
	readonly stderr: string;
	readonly four: string;
}

function cachedSteps(stderr: string): number {
	return stderr.match(/CACHED/g)?.length ?? 0;
}

test("registry: a builder that knows nothing gets all steps, and what nobody needs is not pulled", async () => {
	const ref = `${registry.host}/cache/max:1`;
	const first = await built(["--cache-to", `type=registry,ref=${ref},mode=max`]);
	assert.match(first.stderr, /exporting cache to registry/);
	assert.match(first.stderr, /writing cache image manifest sha256:/);
	const second = await built(["--cache-from", `type=registry,ref=${ref}`]);
	assert.equal(second.four, first.four);
	assert.equal(cachedSteps(second.stderr), 8);
	assert.match(second.stderr, new RegExp(`importing cache manifest from ${ref}`));

	// Not even for an image that is pushed to where its layers are.
	using lazy = new Workbench();
	const image = `${registry.host}/other/image:1`;
	const third = await lazy.build([...busyboxBase, "--cache-from", ref, "-t", image, "--push", context]);
	assert.equal(cachedSteps(third.stderr), 8);
	const blobs = join(lazy.root, "content/blobs/sha256");
	for (const name of readdirSync(blobs)) {
		assert.notEqual(readFileSync(join(blobs, name)).subarray(0, 2).toString("hex"), "1f8b", "no layer");
	}
});

test("registry: an image, and min caches of two builds, are imported together; what changed is built", async () => {
	const image = `${registry.host}/image:1`;
	const first = await built(["--build-arg", "BUILDKIT_INLINE_CACHE=1", "-o", `type=registry,name=${image}`]);
	const other = `${registry.host}/cache/other:1`;
	await built(["--cache-to", `type=registry,ref=${other},image-manifest=false`]);
	const again = await built(["--cache-from", `${registry.host}/none:1`, "--cache-from", `${image},${other}`]);
	assert.match(again.stderr, /WARN: cache .*none:1 is not used: .*not found/);
	assert.equal(cachedSteps(again.stderr), 8);
	assert.ok(again.four.length === first.four.length);
});

test("local: exported with tags, only what is missing is written, and imported by tag", async () => {
	const cache = shared.path("cache");
	const first = await built(["--cache-to", `type=local,dest=${cache},mode=max,tag=main`]);
	const blobs = (): readonly string[] => readdirSync(join(cache, "blobs/sha256")).toSorted();
	const before = blobs();
	const times = before.map((name) => statSync(join(cache, "blobs/sha256", name)).mtimeMs);
	const second = await built([
		"--cache-from",
		`type=local,src=${cache},tag=main`,
		"--cache-to",
		`type=local,dest=${cache},mode=max`,
	]);
	assert.equal(second.four, first.four);
	for (const [at, name] of before.entries()) {
		assert.equal(statSync(join(cache, "blobs/sha256", name)).mtimeMs, times[at], "was not written again");
	}
	const index = JSON.parse(readFileSync(join(cache, "index.json"), "utf8"));
	assert.deepEqual(
		index.manifests.map((each: { annotations: object }) => Object.values(each.annotations)),
		[["main"], ["latest"]],
	);
	const missing = await built(["--cache-from", `type=local,src=${cache},tag=none`]);
	assert.match(missing.stderr, /WARNING: local cache import at .* skipped: no digest found for tag none/);
	assert.notEqual(missing.four, first.four);
});

test("a damaged layer, a layer that is gone and a manifest of random bytes are misses with a warning", async () => {
	const cache = shared.path("damaged");
	const first = await built(["--cache-to", `type=local,dest=${cache},mode=max`]);
	const dir = join(cache, "blobs/sha256");
	const layers = readdirSync(dir).filter((name) => readFileSync(join(dir, name)).readUInt16BE(0) === 0x1f8b);
	const small = layers.filter((name) => statSync(join(dir, name)).size < 10_000);
	assert.ok(small.length >= 7);
	for (const name of small) {
		const bytes = readFileSync(join(dir, name));
		bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 0xff;
		writeFileSync(join(dir, name), bytes);
	}
	const second = await built(["--cache-from", `type=local,src=${cache}`]);
	assert.match(second.stderr, /an imported cache is damaged/);
	assert.notEqual(second.four, first.four);

	for (const name of small) {
		writeFileSync(join(dir, name), "");
	}
	const third = await built(["--cache-from", `type=local,src=${cache}`]);
	assert.match(third.stderr, /an imported cache is damaged/);

	const random = shared.path("random");
	mkdirSync(join(random, "blobs/sha256"), { recursive: true });
	const digest = "0".repeat(64);
	writeFileSync(join(random, "blobs/sha256", digest), Buffer.from([0, 255, 1, 254, 10]));
	const fourth = await built(["--cache-from", `type=local,src=${random},digest=sha256:${digest}`]);
	assert.match(fourth.stderr, /WARN: cache local:\S+ is not used: /);
});

test("a place that can't be written to is a warning, and an error for who insists; bad options are errors", async () => {
	const to = "type=registry,ref=127.0.0.1:1/nowhere";
	const { stderr } = await shared.build([...busyboxBase, "--cache-to", to, context]);
	assert.match(stderr, /WARN: exporting cache to registry failed: /);
	const refused = await shared.run([...busyboxBase, "--cache-to", `${to},ignore-error=false`, context]);
	assert.equal(refused.code, 1);
	for (const [option, message] of [
		["type=floppy", 'unknown cache exporter: "floppy"'],
		["type=registry", "registry cache exporter requires ref"],
		["type=local", "local cache exporter requires dest"],
		[
			"type=registry,ref=x,image-manifest=true,oci-mediatypes=false",
			"OCI mediatypes are required for image-manifest cache format",
		],
		["type=registry,ref=x,compression=lzma", "unsupported compression type lzma"],
	] as const) {
		const result = await shared.run([...busyboxBase, "--cache-to", option, context]);
		assert.equal(result.code, 1, option);
		assert.ok(result.stderr.includes(message), result.stderr);
	}
});

test("what came with an imported result is known afterwards without the import", async () => {
	const ref = `${registry.host}/cache/kept:1`;
	await built(["--cache-to", `type=registry,ref=${ref},mode=max`]);
	using bench = new Workbench();
	await bench.build([...busyboxBase, "-o", bench.path("out"), "--cache-from", ref, context]);
	const changed = bench.context({ ...files, "sub/b.txt": "changed\n" });
	const { stderr } = await bench.build([...busyboxBase, changed]);
	assert.match(stderr, /\[stage-1 1\/5\] RUN cat .*> \/three\n#\d+ CACHED/);
	assert.match(stderr, /\[stage-1 2\/5\] COPY --from=one .*\n#\d+ CACHED/);
});

test("cache mounts travel: a fresh builder restores them when a step runs, with owners and modes", async () => {
	const mounted = (marker: string): Readonly<Record<string, string>> => ({
		Dockerfile: `FROM base
ARG MARKER=${marker}
RUN --mount=type=cache,target=/cache --mount=type=cache,id=own,target=/own,uid=7,mode=0750 <<EOF
set -e
stat -c '%a %u %n' /own >> /log
test ! -f /cache/kept || cat /cache/kept >> /log
test ! -f /own/kept || stat -c '%a %u %g %s' /own/kept >> /log
echo $MARKER >> /cache/kept
mkdir -p /cache/dir/empty
test -f /own/kept || { echo own > /own/kept; chmod 640 /own/kept; chown 5:6 /own/kept; ln -s kept /own/link; }
readlink /own/link >> /log
EOF
`,
	});
	const places: readonly (readonly [to: string, from: string])[] = [
		[`type=registry,ref=${registry.host}/mounts:1`, `type=registry,ref=${registry.host}/mounts:1`],
		[`type=local,dest=${shared.path("mounts")}`, `type=local,src=${shared.path("mounts")}`],
	];
	for (const [to, from] of places) {
		using first = new Workbench();
		const out = ["-o", first.path("out")];
		const one = await first.build([
			...busyboxBase,
			...out,
			"--cache-mount-to",
			to,
			first.context(mounted("one")),
		]);
		assert.match(one.stderr, /exporting cache mounts to/);
		assert.equal(readFileSync(first.path("out/log"), "utf8"), "750 7 /own\nkept\n");

		using second = new Workbench();
		const two = await second.build([
			...busyboxBase,
			"-o",
			second.path("out"),
			...["--cache-mount-from", from, "--cache-mount-to", to],
			second.context(mounted("two")),
		]);
		assert.match(two.stderr, /restoring cache mount \/\/cache/);
		assert.equal(readFileSync(second.path("out/log"), "utf8"), "750 7 /own\none\n640 5 6 4\nkept\n");

		// Only a mount that is missing is restored.
		await second.build([
			...busyboxBase,
			"-o",
			second.path("again"),
			...["--cache-mount-from", from],
			second.context(mounted("three")),
		]);
		assert.equal(readFileSync(second.path("again/log"), "utf8"), "750 7 /own\none\ntwo\n640 5 6 4\nkept\n");
	}
	using last = new Workbench();
	const missing = await last.build([
		...busyboxBase,
		...["--cache-mount-from", `${registry.host}/none:1`],
		last.context(mounted("four")),
	]);
	assert.match(missing.stderr, /WARN: cache mounts of .*none:1 are not used: /);
});

test("S3, Azure and GitHub's cache keep steps and cache mounts", async () => {
	const token = ghaToken();
	await using s3 = await startFakeS3();
	await using azure = await startFakeAzure();
	await using gha = await startFakeGha(token);
	const s3Attrs = `access_key_id=${s3Login.accessKeyId},secret_access_key=${s3Login.secretAccessKey}`;
	const places = [
		`type=s3,bucket=builds,region=eu,endpoint_url=${s3.url},use_path_style=true,${s3Attrs}`,
		`type=azblob,account_url=${azure.url}/${azureLogin.account},account_name=${azureLogin.account},secret_access_key=${azureLogin.key}`,
		`type=gha,version=1,token=${token},url=${gha.url}/,scope=one`,
		`type=gha,token=${token},url_v2=${gha.url}/,scope=two`,
	];
	const steps = (marker: string): Readonly<Record<string, string>> => ({
		Dockerfile: `FROM base
RUN cat /proc/sys/kernel/random/uuid > /first
RUN --mount=type=cache,target=/cache echo ${marker} >> /cache/kept && cat /first /cache/kept > /second
`,
	});
	await Promise.all(
		places.map(async (place) => {
			using first = new Workbench();
			await first.build([
				...busyboxBase,
				"-o",
				first.path("out"),
				...["--cache-to", `${place},mode=max,ignore-error=false`, "--cache-mount-to", place],
				first.context(steps("one")),
			]);
			const uuid = readFileSync(first.path("out/first"), "utf8");
			using second = new Workbench();
			await second.build([
				...busyboxBase,
				"-o",
				second.path("out"),
				...["--cache-from", place, "--cache-mount-from", place],
				second.context(steps("two")),
			]);
			assert.equal(readFileSync(second.path("out/second"), "utf8"), `${uuid}one\ntwo\n`, place.slice(0, 12));
		}),
	);
});

test("an image that is kept here is a cache too where its registry cannot be reached", async () => {
	using bench = new Workbench();
	const name = "127.0.0.1:1/team/app:1";
	const inline = ["--build-arg", "BUILDKIT_INLINE_CACHE=1"];
	await bench.build([...busyboxBase, "--tag", name, "-o", bench.path("first"), ...inline, context]);
	await bench.build([...busyboxBase, "--tag", name, ...inline, context]);
	const first = readFileSync(bench.path("first/four"), "utf8");
	tool(program, ["prune", "--root", bench.root, "--all", "--force"]);
	const again = await bench.build([...busyboxBase, "-o", bench.path("again"), "--cache-from", name, context]);
	assert.equal(readFileSync(bench.path("again/four"), "utf8"), first);
	assert.doesNotMatch(again.stderr, /is not used/);
});
