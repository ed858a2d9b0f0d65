import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { filesBelow, readImage, readLayout, unpackImage } from "./support/image.ts";
import { busyboxBase, busyboxLayout, Workbench } from "./support/slipway.ts";
import { tool } from "./support/tools.ts";

const bench = new Workbench();
after(() => bench[Symbol.dispose]());

test("a multi-stage build gives an image that other tools read, with config and history as BuildKit's", async () => {
	const context = bench.context({
		Dockerfile: `FROM base AS build
ARG GREETING=hello
WORKDIR /work
COPY src/ ./src/
RUN mkdir out && cat src/a.txt src/sub/b.txt > out/all && echo "$GREETING" >> out/all
FROM base AS unused
RUN exit 9
FROM base
LABEL maintainer="somebody" purpose=test
ENV COLOUR=blue PATH=/opt:$PATH
COPY --from=build --chown=app:staff /work/out/all /data/all
COPY --chmod=0750 run.sh /usr/local/bin/
USER app
WORKDIR /data
EXPOSE 8080/tcp 53/udp
VOLUME /data/vol
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=5s CMD true
ENTRYPOINT ["/usr/local/bin/run.sh"]
CMD ["one", "two"]
`,
		"src/a.txt": "a\n",
		"src/sub/b.txt": "b\n",
		"run.sh": "#!/bin/sh\necho ran as $(id -un) with $*; cat /data/all\n",
	});
	const archive = bench.path("multi.tar");
	const metadata = bench.path("metadata.json");
	const result = await bench.build([
		...busyboxBase,
		"--build-arg",
		"GREETING=moin",
		"--label",
		"extra=yes",
		"-t",
		"multi:1",
		"-o",
		`type=oci,dest=${archive}`,
		"--metadata-file",
		metadata,
		context,
	]);
	assert.doesNotMatch(result.stderr, /exit 9/, "a stage that the target does not need never runs");
	const image = readImage(archive, bench.dir);
	assert.equal(image.manifest.layers.length, 1 + 3, "base, two copies, one working directory");
	const { config, history } = image.config;
	assert.deepEqual(config.Entrypoint, ["/usr/local/bin/run.sh"]);
	assert.deepEqual(config.Cmd, ["one", "two"]);
	assert.equal(config.User, "app");
	assert.equal(config.WorkingDir, "/data");
	assert.deepEqual(config.Labels, { extra: "yes", maintainer: "somebody", purpose: "test" });
	assert.deepEqual(config.ExposedPorts, { "53/udp": {}, "8080/tcp": {} });
	assert.deepEqual(config.Volumes, { "/data/vol": {} });
	assert.equal(config.StopSignal, "SIGQUIT");
	assert.ok(config.Env.includes("COLOUR=blue"));
	assert.equal(history.at(-1).created_by, 'CMD ["one" "two"]');
	assert.equal(history.at(-1).comment, "buildkit.dockerfile.v0");
	assert.match(image.layerListing(1).find((line) => line.endsWith("data/all")) ?? "", / 1000\/50 /);
	assert.match(image.layerListing(2).find((line) => line.endsWith("run.sh")) ?? "", /^-rwxr-x---/);
	assert.equal(image.layerFile(1, "data/all"), "a\nb\nmoin\n");
	const seen = JSON.parse(tool("skopeo", ["inspect", `oci-archive:${archive}`]));
	assert.equal(seen.Digest, JSON.parse(readFileSync(metadata, "utf8"))["containerimage.digest"]);
});

test("a second build is cached throughout, and a changed file runs only what depends on it", async () => {
	const context = bench.context({
		Dockerfile: "FROM base\nRUN echo first > /first\nCOPY a.txt /\nRUN cat /a.txt > /second\nCOPY b.txt /\n",
		"a.txt": "1",
		"b.txt": "1",
	});
	await bench.build([...busyboxBase, context]);
	const second = await bench.build([...busyboxBase, context]);
	assert.equal(second.stderr.match(/^#\d+ CACHED$/gm)?.length, 4, second.stderr);
	writeFileSync(join(context, "b.txt"), "2");
	const third = await bench.build([...busyboxBase, context]);
	assert.equal(third.stderr.match(/^#\d+ CACHED$/gm)?.length, 3, third.stderr);
	writeFileSync(join(context, "a.txt"), "2");
	const fourth = await bench.build([...busyboxBase, context]);
	assert.equal(fourth.stderr.match(/^#\d+ CACHED$/gm)?.length, 1, fourth.stderr);
	const fifth = await bench.build([...busyboxBase, "--no-cache", context]);
	// The base image itself is no step.
	assert.equal(fifth.stderr.match(/^#\d+ CACHED$/gm)?.length, 1, fifth.stderr);
});

test("independent stages run side by side", async () => {
	// Each waits for a sign of the other: one after the other they would wait for ever.
	const context = bench.context({
		Dockerfile: `FROM base AS one
RUN --mount=type=cache,target=/meet touch /meet/one; while [ ! -e /meet/two ]; do sleep 0.02; done; touch /done
FROM base AS two
RUN --mount=type=cache,target=/meet touch /meet/two; while [ ! -e /meet/one ]; do sleep 0.02; done; touch /done
FROM scratch
COPY --from=one /done /one
COPY --from=two /done /two
`,
	});
	await bench.build([...busyboxBase, "-o", bench.path("met"), context]);
	assert.deepEqual(filesBelow(bench.path("met")), ["one", "two"]);
});

test("outputs: directory, tar, standard output, docker archive, layout directory, several at once", async () => {
	const context = bench.context({
		Dockerfile: "FROM scratch\nCOPY . /\n",
		"a/b.txt": "content",
		".dockerignore": "Dockerfile\n*.md\n",
		"no.md": "x",
	});
	const local = bench.path("local");
	const tarFile = bench.path("files.tar");
	const docker = bench.path("docker.tar");
	const layout = bench.path("layout");
	await bench.build([
		"-t",
		"several:2",
		"-o",
		local,
		"-o",
		`type=tar,dest=${tarFile}`,
		"-o",
		`type=docker,dest=${docker}`,
		"-o",
		`type=oci,tar=false,dest=${layout}`,
		context,
	]);
	assert.deepEqual(filesBelow(local), [".dockerignore", "a/b.txt"]);
	assert.equal(readFileSync(join(local, "a/b.txt"), "utf8"), "content");
	assert.deepEqual(tool("tar", ["-tf", tarFile]).trim().split("\n").sort(), [
		".dockerignore",
		"a/",
		"a/b.txt",
	]);
	assert.match(tool("skopeo", ["inspect", "--config", `docker-archive:${docker}`]), /"architecture"/);
	assert.equal(readLayout(layout).manifest.layers.length, 1);
	assert.equal(existsSync(join(unpackImage(layout, "2", bench.path("unpacked")), "a/b.txt")), true);
	const piped = await bench.build(["-o", "-", context]);
	writeFileSync(bench.path("piped.tar"), piped.stdout);
	assert.equal(tool("tar", ["-xOf", bench.path("piped.tar"), "a/b.txt"]), "content");
});

test("a named image is found by a later FROM", async () => {
	const first = bench.context({ Dockerfile: "FROM base\nRUN echo made > /made\n" });
	const id = bench.path("iid");
	const quiet = await bench.build([...busyboxBase, "-q", "-t", "local/first", "--iidfile", id, first]);
	assert.match(quiet.stdout.toString(), /^sha256:[0-9a-f]{64}\n$/);
	assert.equal(quiet.stderr, "");
	assert.equal(readFileSync(id, "utf8"), quiet.stdout.toString().trim());
	const second = bench.context({ Dockerfile: "FROM local/first\nRUN cat /made > /again\n" });
	await bench.build(["-o", bench.path("again"), second]);
	assert.equal(readFileSync(bench.path("again/again"), "utf8"), "made\n");
});

test("ADD unpacks local archives, COPY does not; wildcards and owners", async () => {
	const source = bench.context({ "in/one.txt": "1", "in/two.txt": "2" });
	tool("tar", ["-C", join(source, "in"), "-czf", join(source, "files.tgz"), "one.txt", "two.txt"]);
	writeFileSync(
		join(source, "Dockerfile"),
		"FROM base\nADD files.tgz /added/\nCOPY files.tgz /copied/\nADD --chown=1000:1000 in/*.txt /wild/\nRUN ls -ln /wild > /listing\n",
	);
	await bench.build([...busyboxBase, "-o", bench.path("added"), source]);
	assert.equal(readFileSync(bench.path("added/added/one.txt"), "utf8"), "1");
	assert.equal(existsSync(bench.path("added/copied/files.tgz")), true);
	assert.match(
		readFileSync(bench.path("added/listing"), "utf8"),
		/1000\s+1000.*one\.txt[\s\S]*1000\s+1000.*two\.txt/,
	);
});

test("contexts on standard input: a Dockerfile, and a tar", async () => {
	await bench.build([...busyboxBase, "-o", bench.path("stdin"), "-"], {
		input: "FROM base\nRUN echo from stdin > /f\n",
	});
	assert.equal(readFileSync(bench.path("stdin/f"), "utf8"), "from stdin\n");
	const context = bench.context({ Dockerfile: "FROM scratch\nCOPY f /\n", f: "in the tar" });
	tool("tar", ["-C", context, "-czf", bench.path("context.tgz"), "."]);
	await bench.build(["-o", bench.path("tarred"), "-"], { input: readFileSync(bench.path("context.tgz")) });
	assert.equal(readFileSync(bench.path("tarred/f"), "utf8"), "in the tar");
});

test("links, modes and times of the context arrive in the image", async () => {
	const context = bench.context({
		Dockerfile: "FROM scratch\nCOPY . /\n",
		"dir/file": "x",
		run: "#!/bin/sh\n",
	});
	symlinkSync("dir/file", join(context, "link"));
	mkdirSync(join(context, "empty"));
	const archive = bench.path("links.tar");
	await bench.build(["-o", `type=oci,dest=${archive}`, context]);
	const listing = readImage(archive, bench.dir).layerListing(0).join("\n");
	assert.match(listing, /lrwxrwxrwx 0\/0 .* link -> dir\/file/);
	assert.match(listing, /-rwxr-xr-x 0\/0 .* run/);
	assert.match(listing, /drwxr-xr-x 0\/0 .* empty\//);
});

test("the native snapshotter builds the same image", async () => {
	const context = bench.context({
		Dockerfile: "FROM base\nRUN rm /etc/group && echo new > /new\nCOPY f /f\n",
		f: "f",
	});
	const args = [...busyboxBase, "--build-arg", "SOURCE_DATE_EPOCH=1700000000"];
	const overlay = bench.path("overlay.tar");
	const native = bench.path("native.tar");
	await bench.build([...args, "-o", `type=oci,dest=${overlay}`, context]);
	using other = new Workbench();
	await other.build([...args, "--snapshotter", "native", "-o", `type=oci,dest=${native}`, context]);
	const listings = [overlay, native].map((file) => {
		const image = readImage(file, bench.dir);
		return [1, 2].map((layer) =>
			image.layerListing(layer).map((line) => line.replace(/\d{4}-\d\d-\d\d \d\d:\d\d/, "")),
		);
	});
	assert.deepEqual(listings[0], listings[1]);
	assert.ok(listings[0]?.[0]?.some((line) => line.endsWith("etc/.wh.group")));
});

test("progress: rawjson is one JSON object per line", async () => {
	const context = bench.context({ Dockerfile: "FROM base\nRUN echo printed by the step\n" });
	const result = await bench.build([...busyboxBase, "--progress", "rawjson", context]);
	const records = result.stderr
		.trim()
		.split("\n")
		.map((line) => JSON.parse(line));
	const names = records.flatMap((record) => record.vertexes ?? []).map((vertex) => vertex.name);
	assert.ok(names.includes("[1/2] RUN echo printed by the step"), names.join("\n"));
	const logs = records
		.flatMap((record) => record.logs ?? [])
		.map((log) => Buffer.from(log.data, "base64").toString());
	assert.equal(logs.join(""), "printed by the step\n");
});

test("a state directory may be named relative to the working directory", async () => {
	const context = bench.context({ Dockerfile: "FROM base\nRUN echo relative > /f\n" });
	await bench.build([...busyboxBase, "--root", "relative-state", "-o", "relative-out", context], {
		cwd: bench.dir,
	});
	assert.equal(readFileSync(bench.path("relative-out/f"), "utf8"), "relative\n");
});

test("the base images of the tests are there", () => {
	assert.equal(statSync(busyboxLayout).isDirectory(), true);
});
