import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
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
/** One builder for all, which is made to forget: to start another for each build takes longer than the builds. */
const builder = new Workbench({ background: true });
let context: string;
let outputs = 0;

before(async () => {
	registry = await startRealRegistry();
	context = builder.context(files);
});

after(async () => {
	await registry[Symbol.asyncDispose]();
	builder[Symbol.dispose]();
});

/** Afterwards the builder has no results, cache mounts and blobs. */
async function forget(): Promise<void> {
	await promisify(execFile)(program, ["prune", "--all", "--force", "--root", builder.root], {
		env: { PATH: process.env["PATH"], HOME: builder.dir },
	});
}

/** What the last step has made, in a builder that knows nothing. */
async function built(args: readonly string[]): Promise<Built> {
	await forget();
	const out = builder.path(`out${outputs++}`);
	const { stderr } = await builder.build([...busyboxBase, "-o", out, ...args, context]);
	return { stderr, four: readFileSync(join(out, "four"), "utf8") };
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
	const cache = builder.path("cache");
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
	const cache = builder.path("damaged");
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

	const random = builder.path("random");
	mkdirSync(join(random, "blobs/sha256"), { recursive: true });
	const digest = "0".repeat(64);
	writeFileSync(join(random, "blobs/sha256", digest), Buffer.from([0, 255, 1, 254, 10]));
	const fourth = await built(["--cache-from", `type=local,src=${random},digest=sha256:${digest}`]);
	assert.match(fourth.stderr, /WARN: cache local:\S+ is not used: /);
});

test("a place that can't be written to is a warning, and an error for who insists; bad options are errors", async () => {
	const to = "type=registry,ref=127.0.0.1:1/nowhere";
	const { stderr } = await builder.build([...busyboxBase, "--cache-to", to, context]);
	assert.match(stderr, /WARN: exporting cache to registry failed: /);
	const refused = await builder.run([...busyboxBase, "--cache-to", `${to},ignore-error=false`, context]);
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
		const result = await builder.run([...busyboxBase, "--cache-to", option, context]);
		assert.equal(result.code, 1, option);
		assert.ok(result.stderr.includes(message), result.stderr);
	}
});

test("what came with an imported result is known afterwards without the import", async () => {
	const ref = `${registry.host}/cache/kept:1`;
	await built(["--cache-to", `type=registry,ref=${ref},mode=max`]);
	await built(["--cache-from", ref]);
	const changed = builder.context({ ...files, "sub/b.txt": "changed\n" });
	const { stderr } = await builder.build([...busyboxBase, changed]);
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
		[`type=local,dest=${builder.path("mounts")}`, `type=local,src=${builder.path("mounts")}`],
	];
	const log = async (
		marker: string,
		...args: readonly string[]
	): Promise<readonly [log: string, stderr: string]> => {
		const out = builder.path(`out${outputs++}`);
		const { stderr } = await builder.build([
			...busyboxBase,
			"-o",
			out,
			...args,
			builder.context(mounted(marker)),
		]);
		return [readFileSync(join(out, "log"), "utf8"), stderr];
	};
	for (const [to, from] of places) {
		await forget();
		const [one, exporting] = await log("one", "--cache-mount-to", to);
		assert.match(exporting, /exporting cache mounts to/);
		assert.equal(one, "750 7 /own\nkept\n");

		await forget();
		const [two, restoring] = await log("two", "--cache-mount-from", from, "--cache-mount-to", to);
		assert.match(restoring, /restoring cache mount \/\/cache/);
		assert.equal(two, "750 7 /own\none\n640 5 6 4\nkept\n");

		// Only a mount that is missing is restored.
		const [three] = await log("three", "--cache-mount-from", from);
		assert.equal(three, "750 7 /own\none\ntwo\n640 5 6 4\nkept\n");
	}
	await forget();
	const [, missing] = await log("four", "--cache-mount-from", `${registry.host}/none:1`);
	assert.match(missing, /WARN: cache mounts of .*none:1 are not used: /);
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
	for (const place of places) {
		await forget();
		const out = builder.path(`out${outputs++}`);
		const build = (marker: string, ...args: readonly string[]): Promise<unknown> =>
			builder.build([...busyboxBase, "-o", out, ...args, builder.context(steps(marker))]);
		await build("one", "--cache-to", `${place},mode=max,ignore-error=false`, "--cache-mount-to", place);
		const uuid = readFileSync(join(out, "first"), "utf8");
		await forget();
		await build("two", "--cache-from", place, "--cache-mount-from", place);
		assert.equal(readFileSync(join(out, "second"), "utf8"), `${uuid}one\ntwo\n`, place.slice(0, 12));
	}
});
