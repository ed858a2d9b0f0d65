import assert from "node:assert/strict";
import {
	existsSync,
	mkdirSync,
	readdirSync,
	readFileSync,
	statSync,
	utimesSync,
	writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type RealRegistry, startRealRegistry } from "../src/registry/real-registry.ts";
import { digestOf } from "./support/engines.ts";
import { readImage, unpackImage } from "./support/image.ts";
import { busyboxBase, busyboxLayout, Workbench } from "./support/slipway.ts";
import { tool } from "./support/tools.ts";

/** User tester, password secret, as `htpasswd -nbB` hashes it. */
const users = "tester:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";
const plain = ["--tls-verify=false"];
const bench = new Workbench();
let open: RealRegistry;
let locked: RealRegistry;
let dockerConfig: string;

before(async () => {
	open = await startRealRegistry();
	const key = bench.path("key.pem");
	const certificate = bench.path("cert.pem");
	const request = [
		"req",
		"-x509",
		"-newkey",
		"ec",
		"-pkeyopt",
		"ec_paramgen_curve:P-256",
		"-nodes",
		"-days",
		"2",
	];
	const subject = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
	tool("openssl", [...request, ...subject, "-keyout", key, "-out", certificate]);
	locked = await startRealRegistry({ htpasswd: users, tls: { certificate, key } });
	const certs = bench.path(`.config/docker/certs.d/${locked.host}`);
	mkdirSync(certs, { recursive: true });
	writeFileSync(join(certs, "ca.crt"), readFileSync(certificate));
	dockerConfig = bench.path("docker-config");
	mkdirSync(dockerConfig);
	const auth = Buffer.from("tester:secret").toString("base64");
	writeFileSync(join(dockerConfig, "config.json"), JSON.stringify({ auths: { [locked.host]: { auth } } }));
	tool("skopeo", [
		"copy",
		"--dest-tls-verify=false",
		`oci:${busyboxLayout}:latest`,
		`docker://${open.host}/team/busybox:1`,
	]);
});

after(async () => {
	await open?.[Symbol.asyncDispose]();
	await locked?.[Symbol.asyncDispose]();
	bench[Symbol.dispose]();
});

// biome-ignore lint/suspicious/noExplicitAny: tests look into foreign documents
function json(text: string): any {
	return JSON.parse(text);
}

function blobsOf(root: string): readonly number[] {
	const dir = join(root, "content/blobs/sha256");
	return readdirSync(dir).map((name) => statSync(join(dir, name)).size);
}

const program = { Dockerfile: "FROM base\nRUN echo ran > /ran\nCOPY x /x\n", x: "x" };

test("--push: under every tag, with a metadata file and an image ID as buildx writes them", async () => {
	const context = bench.context(program);
	const names = [`${open.host}/a/b:1`, `${open.host}/c`];
	const result = await bench.build([
		...busyboxBase,
		...names.flatMap((name) => ["-t", name]),
		...["--annotation", "who=me", "--metadata-file", "meta.json", "--iidfile", "iid", "--push", context],
	]);
	assert.match(result.stderr, /pushing layers .*done/);
	assert.match(result.stderr, new RegExp(`pushing manifest for ${open.host}/a/b:1@sha256:`));
	const meta = json(readFileSync(bench.path("meta.json"), "utf8"));
	const raw = tool("skopeo", ["inspect", ...plain, "--raw", `docker://${open.host}/a/b:1`]);
	const inspected = json(tool("skopeo", ["inspect", ...plain, `docker://${open.host}/c:latest`]));
	assert.equal(inspected.Digest, meta["containerimage.digest"]);
	assert.equal(meta["containerimage.config.digest"], json(raw).config.digest);
	assert.equal(meta["containerimage.descriptor"].digest, meta["containerimage.digest"]);
	assert.equal(meta["image.name"], `${open.host}/a/b:1,${open.host}/c:latest`);
	assert.match(meta["buildx.build.ref"], /^[^/]+\/[^/]+\/[a-z0-9]+$/);
	assert.equal(readFileSync(bench.path("iid"), "utf8"), json(raw).config.digest);
	assert.equal(json(raw).annotations.who, "me");
	const again = await bench.run([...busyboxBase, "-t", names[0] ?? "", "--output", "type=registry", context]);
	assert.equal(again.code, 0, again.stderr);
});

test("push to a registry with TLS of its own authority and a login; what fails says what to do", async () => {
	const context = bench.context(program);
	const name = `${locked.host}/private/app:1`;
	const args = [...busyboxBase, "-t", name, "--push", context];
	const refused = await bench.run(args);
	assert.equal(refused.code, 1);
	assert.match(
		refused.stderr,
		/^ERROR: failed to push 127[\d.:]+\/private\/app:1: .*401 Unauthorized: .*registry 127[\d.:]+ wants a login for repository private\/app; run "docker login 127[\d.:]+"/m,
	);
	const pushed = await bench.build(args, { env: { DOCKER_CONFIG: dockerConfig } });
	assert.doesNotMatch(pushed.stderr, /secret/);
	const inspect = ["inspect", ...plain, "--creds", "tester:secret", `docker://${name}`];
	assert.equal(json(tool("skopeo", inspect)).Layers.length, 3);
	using stranger = new Workbench();
	const copied = stranger.context(program);
	const env = { DOCKER_CONFIG: dockerConfig };
	const untrusted = await stranger.run([...busyboxBase, "-t", name, "-o", "type=registry", copied], { env });
	assert.equal(untrusted.code, 1);
	assert.match(untrusted.stderr, /^ERROR: failed to push .*400 Bad Request/m);
	const anyway = "type=registry,registry.insecure=true";
	await stranger.build([...busyboxBase, "-t", name, "-o", anyway, copied], { env });
	await using other = await startRealRegistry();
	await other[Symbol.asyncDispose]();
	const gone = await bench.run([...busyboxBase, "-t", `${other.host}/a:1`, "--push", context]);
	assert.match(
		gone.stderr,
		new RegExp(`^ERROR: failed to push ${other.host}/a:1: .*connection refused by ${other.host}`, "m"),
	);
});

test("an index for several platforms, by digest, with annotations in their places", async () => {
	const context = bench.context({
		Dockerfile: "FROM scratch\nARG TARGETARCH\nCOPY x /$TARGETARCH\n",
		x: "x",
	});
	const platforms = ["--platform", "linux/amd64,linux/arm64"];
	const notes = ["index:all=yes", "manifest[linux/arm64]:only=arm", "manifest-descriptor:d=e"];
	await bench.build([
		...platforms,
		...notes.flatMap((note) => ["--annotation", note]),
		...["--metadata-file", "index.json"],
		...["-o", `type=image,name=${open.host}/multi,push=true,push-by-digest=true`, context],
	]);
	const digest = json(readFileSync(bench.path("index.json"), "utf8"))["containerimage.digest"];
	assert.throws(() => tool("skopeo", ["inspect", ...plain, `docker://${open.host}/multi:latest`]));
	const index = json(tool("skopeo", ["inspect", ...plain, "--raw", `docker://${open.host}/multi@${digest}`]));
	assert.equal(index.annotations.all, "yes");
	assert.deepEqual(
		index.manifests.map((each: { platform: { architecture: string } }) => each.platform.architecture),
		["amd64", "arm64"],
	);
	const [amd, arm] = index.manifests.map((each: { digest: string }) =>
		json(tool("skopeo", ["inspect", ...plain, "--raw", `docker://${open.host}/multi@${each.digest}`])),
	);
	assert.equal(amd.annotations, undefined);
	assert.equal(arm.annotations.only, "arm");
	assert.equal(index.manifests[0].annotations.d, "e");
});

test("the base's layers are mounted from their repository: they are neither fetched nor sent", async () => {
	using other = new Workbench();
	const context = other.context({ Dockerfile: `FROM ${open.host}/team/busybox:1\nENV only=metadata\n` });
	await other.build(["-t", `${open.host}/derived/app:1`, "--push", context]);
	assert.ok(Math.max(...blobsOf(other.root)) < 100_000, "no layer is here");
	const layers = json(tool("skopeo", ["inspect", ...plain, `docker://${open.host}/derived/app:1`])).Layers;
	assert.equal(layers.length, 1);
	tool("skopeo", [
		"copy",
		"--src-tls-verify=false",
		`docker://${open.host}/derived/app:1`,
		`dir:${other.path("copy")}`,
	]);
});

for (const compression of ["gzip", "zstd", "estargz", "uncompressed"]) {
	test(`layers in ${compression}: pushed, read by skopeo and by a new builder`, async () => {
		const name = `${open.host}/compressed/${compression}:1`;
		const context = bench.context(program);
		const output = `type=image,push=true,compression=${compression},force-compression=true,compression-level=1`;
		await bench.build([...busyboxBase, "-t", name, "-o", output, context]);
		const raw = json(tool("skopeo", ["inspect", ...plain, "--raw", `docker://${name}`]));
		for (const layer of raw.layers) {
			const wanted = { gzip: "+gzip", zstd: "+zstd", estargz: "+gzip", uncompressed: ".tar" }[compression];
			assert.ok(layer.mediaType.endsWith(wanted), layer.mediaType);
			const isEstargz = layer.annotations?.["containerd.io/snapshot/stargz/toc.digest"] !== undefined;
			assert.equal(isEstargz, compression === "estargz");
		}
		const layout = bench.path(`layout-${compression}`);
		tool("skopeo", ["copy", "--quiet", "--src-tls-verify=false", `docker://${name}`, `oci:${layout}:v1`]);
		if (compression === "gzip" || compression === "estargz") {
			// Debian's umoci knows no zstd.
			const root = unpackImage(layout, "v1", bench.path(`unpacked-${compression}`));
			assert.equal(readFileSync(join(root, "ran"), "utf8"), "ran\n");
		}
		using other = new Workbench();
		const reading = other.context({
			Dockerfile: `FROM ${name}\nRUN cat /ran > /again && cat /x >> /again\n`,
		});
		await other.build(["-o", other.path("out"), reading]);
		assert.equal(readFileSync(other.path("out/again"), "utf8"), "ran\nx");
		assert.ok(!existsSync(other.path("out/stargz.index.json")));
	});
}

test("the same inputs and epoch give the same bytes in two state directories, on one processor and on all", async () => {
	const files = {
		Dockerfile: "FROM base\nRUN mkdir /made && seq 100000 > /made/numbers\nCOPY . /src\n",
		big: Buffer.alloc(6 << 20, "slipway makes the same bytes "),
		x: "x",
	};
	const outputs = [
		...["gzip", "zstd", "estargz"].map(
			(kind) => `type=oci,dest=${kind}.tar,compression=${kind},force-compression=true,rewrite-timestamp=true`,
		),
		"type=docker,dest=docker.tar,rewrite-timestamp=true",
		"type=tar,dest=files.tar",
	];
	const names = outputs.map((output) => /dest=([^,]+)/.exec(output)?.[1] ?? "");
	const digests = new Map<string, string>();
	for (const isAlone of [false, true]) {
		using other = new Workbench();
		const context = other.context(files);
		const seconds = isAlone ? 1_800_000_000 : 1_700_000_000;
		utimesSync(join(context, "x"), seconds, seconds);
		const args = [
			...busyboxBase,
			...["--build-arg", "SOURCE_DATE_EPOCH=1600000000", "-t", "same:1", "--in-process"],
			...outputs.flatMap((output) => ["-o", output]),
			context,
		];
		if (isAlone) {
			const program = join(import.meta.dirname, "../bin/slipway");
			const all = ["-c", "0", program, "build", "--root", other.root, "--progress", "plain", ...args];
			tool("env", ["-C", other.dir, `HOME=${other.dir}`, "UV_THREADPOOL_SIZE=1", "taskset", ...all]);
		} else {
			await other.build(args);
		}
		for (const name of names) {
			const digest = digestOf(other.path(name));
			assert.equal(digests.get(name) ?? digest, digest, name);
			digests.set(name, digest);
		}
	}
	assert.equal(digests.size, names.length);
});

test("an epoch rewrites what was made, and leaves the base's layers and history", async () => {
	const context = bench.context(program);
	const output = "type=oci,dest=epoch.tar,rewrite-timestamp=true";
	await bench.build([...busyboxBase, "--build-arg", "SOURCE_DATE_EPOCH=1600000000", "-o", output, context], {
		cwd: bench.dir,
	});
	const image = readImage(bench.path("epoch.tar"), bench.dir);
	const base = json(readFileSync(join(busyboxLayout, "index.json"), "utf8")).manifests[0].digest;
	const manifest = json(readFileSync(join(busyboxLayout, "blobs", ...base.split(":")), "utf8"));
	assert.equal(image.manifest.layers[0]?.digest, manifest.layers[0].digest);
	assert.equal(image.config.created, "2020-09-13T12:26:40Z");
	for (const index of [1, 2]) {
		assert.ok(
			image.layerListing(index).every((line) => line.includes(" 2020-09-13 ")),
			image.layerListing(index).join(),
		);
	}
});

test("a push without a tag, a mirror outside of the directory and an engine that is not there are refused at once", async () => {
	const context = bench.context({ Dockerfile: "FROM scratch\n" });
	const refused = async (args: readonly string[], message: RegExp, env = {}): Promise<void> => {
		const result = await bench.run([...args, context], { env });
		assert.equal(result.code, 1, result.stderr);
		assert.match(result.stderr, message);
		assert.doesNotMatch(result.stderr, /load build definition/);
	};
	await refused(["--push"], /^ERROR: tag is needed when pushing to registry$/m);
	await refused(
		["-o", "type=local,dest=/,mode=delete"],
		/destination "\/" requires --allow=buildx\.local\.delete/,
	);
	const nowhere = { DOCKER_HOST: `unix://${bench.path("none.sock")}` };
	await refused(
		["-t", "a", "--load"],
		/cannot connect to the container engine at unix:.*none\.sock: is it running\?/,
		nowhere,
	);
	await refused(["-t", "a", "--annotation", "layer:a=b", "--push"], /unknown annotation type "layer"/);
});
