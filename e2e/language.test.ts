import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
	existsSync,
	mkdirSync,
	readFileSync,
	statSync,
	symlinkSync,
	utimesSync,
	writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import {
	commitDate,
	openRepositories,
	type Repositories,
	type Repository,
} from "../src/source/git-fixture.ts";
import { type LoopbackServer, startServer } from "../src/source/source-fixture.ts";
import { filesBelow, readImage } from "./support/image.ts";
import { busyboxBase, busyboxLayout, foreignLayout, Workbench } from "./support/slipway.ts";
import { tool } from "./support/tools.ts";

const bench = new Workbench();
const modified = "Thu, 01 Jan 2015 00:00:00 GMT";
const files = new Map<string, Uint8Array | string>();
let web: LoopbackServer;
let repositories: Repositories;
let repository: Repository;
let gitUrl: string;
let commit: string;

before(async () => {
	web = await startServer((request, response) => {
		const path = request.url ?? "";
		const body = files.get(path);
		if (path === "/short") {
			response.writeHead(200, { "content-length": "100000" }).write("x".repeat(100));
			response.destroy();
		} else if (body === undefined) {
			response.writeHead(404).end();
		} else {
			response.writeHead(200, { "last-modified": modified }).end(body);
		}
	});
	repositories = openRepositories();
	repository = repositories.create("repo");
	commit = repository.commit({
		Dockerfile: "FROM scratch\nCOPY . /\n",
		"a.txt": "a",
		"sub/Dockerfile": "FROM scratch\nCOPY b.txt /\n",
		"sub/b.txt": "b",
		"sub/c.txt": "c",
	});
	repository.git("tag", "v1", commit);
	gitUrl = `${(await repositories.serve()).url}/repo.git`;
});

after(async () => {
	bench[Symbol.dispose]();
	await web[Symbol.asyncDispose]();
	await repositories[Symbol.asyncDispose]();
});

/** Builds into a directory and gives it. */
let outputs = 0;
async function buildTree(dockerfile: string, args: readonly string[] = [], others = {}): Promise<string> {
	const out = bench.path(`out${outputs++}`);
	const context = bench.context({ Dockerfile: dockerfile, ...others });
	await bench.build([...busyboxBase, ...args, "-o", out, context]);
	return out;
}

async function failure(
	dockerfile: string,
	args: readonly string[] = [],
	others: Readonly<Record<string, string | Uint8Array>> = {},
): Promise<string> {
	const context = bench.context({ Dockerfile: dockerfile, ...others });
	const result = await bench.run([...busyboxBase, ...args, context]);
	assert.equal(result.code, 1, result.stderr);
	return result.stderr;
}

const read = (dir: string, path: string): string => readFileSync(join(dir, path), "utf8");
const sha256 = (data: string): string => `sha256:${createHash("sha256").update(data).digest("hex")}`;

test("ADD takes files from http with checksum, mode and the server's time, and unpacks them on request", async () => {
	files.set("/file.bin", "from the web");
	const packed = bench.context({ "in/x.txt": "packed" });
	files.set("/archive.tar.gz", execFileSync("tar", ["-C", packed, "-cz", "in"]));
	const out = await buildTree(`FROM scratch
ADD --checksum=${sha256("from the web")} ${web.url}/file.bin /
ADD --chmod=0755 ${web.url}/file.bin /named
ADD ${web.url}/archive.tar.gz /kept/
ADD --unpack ${web.url}/archive.tar.gz /unpacked/
`);
	assert.equal(read(out, "file.bin"), "from the web");
	assert.equal(statSync(join(out, "file.bin")).mtimeMs, Date.parse(modified));
	assert.equal(statSync(join(out, "file.bin")).mode & 0o777, 0o600);
	assert.equal(statSync(join(out, "named")).mode & 0o777, 0o755);
	assert.deepEqual(filesBelow(join(out, "kept")), ["archive.tar.gz"]);
	assert.equal(read(out, "unpacked/in/x.txt"), "packed");
});

test("ADD takes git trees: branch, tag, commit, subdirectory, query, with and without .git", async () => {
	const out = await buildTree(`FROM scratch
ADD ${gitUrl}#main /branch
ADD ${gitUrl}#v1:sub /subdir
ADD --keep-git-dir ${gitUrl}#${commit} /commit
ADD ${gitUrl}?tag=v1&subdir=sub /query
`);
	assert.deepEqual(filesBelow(join(out, "branch")), [
		"Dockerfile",
		"a.txt",
		"sub/Dockerfile",
		"sub/b.txt",
		"sub/c.txt",
	]);
	assert.deepEqual(filesBelow(join(out, "subdir")), ["Dockerfile", "b.txt", "c.txt"]);
	assert.deepEqual(filesBelow(join(out, "query")), ["Dockerfile", "b.txt", "c.txt"]);
	const head = tool("git", ["-c", "safe.directory=*", "-C", join(out, "commit"), "rev-parse", "HEAD"]);
	assert.equal(head.trim(), commit);
	assert.equal(existsSync(join(out, "branch/.git")), false);
});

test("contexts by git and http, main and named; ssh with the user's agent", async () => {
	const build = async (args: readonly string[], env = {}): Promise<string> => {
		const out = bench.path(`out${outputs++}`);
		await bench.build([...busyboxBase, "-o", out, ...args], { env });
		return out;
	};
	assert.deepEqual(filesBelow(await build([`${gitUrl}#main:sub`])), ["b.txt"]);
	const keep = await build(["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", `${gitUrl}#main`]);
	assert.equal(read(keep, "a.txt"), "a");
	assert.ok(existsSync(join(keep, ".git/HEAD")));
	const packed = bench.context({ Dockerfile: "FROM scratch\nCOPY f /g\n", f: "f" });
	files.set("/context.tar.gz", execFileSync("tar", ["-C", packed, "-cz", "."]));
	assert.equal(read(await build([`${web.url}/context.tar.gz`]), "g"), "f");
	const other = ["-f", "-", `${web.url}/context.tar.gz`];
	const fromStdin = await bench.build(["-o", bench.path("stdin"), ...other], {
		input: "FROM scratch\nCOPY f /h\n",
	});
	assert.equal(read(bench.path("stdin"), "h"), "f", fromStdin.stderr);
	files.set("/Dockerfile", "FROM scratch\nCOPY <<EOF /only\nfrom a url\nEOF\n");
	assert.equal(read(await build([`${web.url}/Dockerfile`]), "only"), "from a url\n");
	const named = await buildTree(
		"FROM scratch\nCOPY --from=repo /a.txt /\nCOPY --from=pack /context /packed\nCOPY --from=dir / /dir\n",
		[
			"--build-context",
			`repo=${gitUrl}`,
			"--build-context",
			`pack=${web.url}/context.tar.gz`,
			"--build-context",
			`dir=${bench.context({ ".dockerignore": "*.log\n", "x.log": "no", "x.txt": "yes" })}`,
		],
	);
	assert.deepEqual(filesBelow(named), ["a.txt", "dir/.dockerignore", "dir/x.txt", "packed"]);
	const locked = `${(await repositories.serve({ token: "t0ken" })).url}/repo.git`;
	const token = ["--secret", "id=GIT_AUTH_TOKEN,env=TOKEN"];
	assert.equal(read(await build([...token, locked], { TOKEN: "t0ken" }), "a.txt"), "a");
	assert.doesNotMatch((await bench.run([...token, locked], { env: { TOKEN: "wr0ng" } })).stderr, /wr0ng/);
	const ssh = await repositories.serveSsh();
	assert.equal(
		read(await build([`${ssh.url}/repo.git#v1`], { SSH_AUTH_SOCK: ssh.agent }), "a.txt"),
		"a",
		"without --ssh",
	);
	const lists = await buildTree(
		"FROM base AS b\nRUN --mount=type=ssh,id=mine,mode=0666 ls -l $SSH_AUTH_SOCK > /seen\nFROM scratch\nCOPY --from=b /seen /\n",
		["--ssh", `mine=${ssh.agent}`],
	);
	assert.match(read(lists, "seen"), /^srw-rw-rw-.* \/run\/buildkit\/ssh_agent\.0\n$/);
});

test("COPY: --link, --parents, --exclude, heredocs with and without variables; ignore files of a Dockerfile", async () => {
	const others = {
		"src/a/one.txt": "1",
		"src/a/two.md": "2",
		"src/b/one.txt": "3",
		"src/ignored": "x",
		"other.Dockerfile.dockerignore": "src/a\n",
		".dockerignore": "**/ignored\n",
	};
	const out = await buildTree(
		`FROM scratch
ARG WHO=world
COPY --link --exclude=*.md src/a /linked/
COPY --parents src/./*/one.txt /parents/
COPY <<one <<"two" /docs/
hello $WHO
one
hello $WHO
two
COPY src /all/
`,
		[],
		others,
	);
	assert.deepEqual(filesBelow(out), [
		"all/a/one.txt",
		"all/a/two.md",
		"all/b/one.txt",
		"docs/one",
		"docs/two",
		"linked/one.txt",
		"parents/a/one.txt",
		"parents/b/one.txt",
	]);
	assert.equal(read(out, "docs/one") + read(out, "docs/two"), "hello world\nhello $WHO\n");
	const context = bench.context({ "other.Dockerfile": "FROM scratch\nCOPY src /\n", ...others });
	await bench.build(["-f", join(context, "other.Dockerfile"), "-o", bench.path("other"), context]);
	assert.deepEqual(filesBelow(bench.path("other")), ["b/one.txt", "ignored"]);
});

test("RUN heredocs, ONBUILD of a stage, and syntax lines of any version of the built-in frontend", async () => {
	const out = await buildTree(
		`# syntax=docker/dockerfile:1.7-labs
FROM base AS parent
ONBUILD COPY f /from-onbuild
ONBUILD RUN <<EOF
cat /from-onbuild > /seen
echo again >> /seen
EOF
FROM parent AS child
RUN <<EOF
#!/bin/cat
not a shell
EOF
FROM scratch
COPY --from=child /seen /
`,
		["--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1"],
		{ f: "f\n" },
	);
	assert.equal(read(out, "seen"), "f\nagain\n");
	assert.match(
		await failure("# syntax=127.0.0.1:1/other:1\nFROM scratch\n"),
		/Dockerfile:1\n[\s\S]*ERROR: failed to resolve source metadata for 127\.0\.0\.1:1\/other:1/,
	);
	assert.match(
		await failure("FROM scratch\n", ["--build-arg", "BUILDKIT_SYNTAX=127.0.0.1:1/other:1"]),
		/BUILDKIT_SYNTAX = 127\.0\.0\.1:1\/other:1: .*failed to resolve source metadata/,
	);
});

test("proxies of Docker's configuration reach RUN and stay out of the image", async () => {
	const config = bench.context({
		"config.json": JSON.stringify({ proxies: { default: { httpProxy: "http://squid:1" } } }),
	});
	const context = bench.context({
		Dockerfile: "FROM base\nRUN env | grep -ci '^http_proxy=http' | grep -x 2\n",
	});
	const archive = bench.path("proxied.tar");
	await bench.build([...busyboxBase, "-o", `type=oci,dest=${archive}`, context], {
		env: { DOCKER_CONFIG: config },
	});
	assert.doesNotMatch(JSON.stringify(readImage(archive, bench.dir).config), /squid/);
});

test("SOURCE_DATE_EPOCH gives the same image twice, from a number, a commit, a server's time", async () => {
	const digests = new Set<string>();
	for (const name of ["first", "second"]) {
		const context = bench.context({
			Dockerfile: "FROM base\nCOPY f /\nENV A=b\n",
			f: "f",
		});
		utimesSync(join(context, "f"), 1, 1);
		const metadata = bench.path(`${name}.json`);
		const args = ["--no-cache", "-o", `type=oci,dest=${bench.path(`${name}.tar`)}`];
		await bench.build([...busyboxBase, ...args, "--metadata-file", metadata, context], {
			env: { SOURCE_DATE_EPOCH: "1600000000" },
		});
		digests.add(JSON.parse(readFileSync(metadata, "utf8"))["containerimage.digest"]);
	}
	assert.equal(digests.size, 1);
	const created = async (args: readonly string[]): Promise<string> => {
		const archive = bench.path(`epoch${outputs++}.tar`);
		await bench.build([...args, "-o", `type=oci,dest=${archive}`]);
		return readImage(archive, bench.dir).config.created;
	};
	const args = (value: string): readonly string[] => ["--build-arg", `SOURCE_DATE_EPOCH=${value}`];
	assert.equal(await created([...args("context"), `${gitUrl}#v1`]), commitDate);
	files.set("/dated", "x");
	const stage = bench.context({
		Dockerfile: `FROM scratch AS src\nADD ${web.url}/dated /\nFROM scratch\nCOPY --from=src / /\n`,
	});
	assert.equal(Date.parse(await created([...args("src"), stage])), Date.parse(modified));
});

test("several platforms give an index with an image each; cross-compiling stages run natively", async () => {
	const context = bench.context({
		Dockerfile: `FROM --platform=$BUILDPLATFORM base AS build
ARG TARGETPLATFORM
RUN echo for $TARGETPLATFORM > /made
FROM scratch
COPY --from=build /made /
`,
	});
	const layout = bench.path("platforms");
	await bench.build([
		...busyboxBase,
		"--platform",
		"linux/amd64,linux/arm64,linux/arm/v7",
		"-t",
		"platforms:1",
		"-o",
		`type=oci,tar=false,dest=${layout}`,
		"-o",
		"type=image",
		"-o",
		bench.path("by-platform"),
		context,
	]);
	const index = JSON.parse(tool("skopeo", ["inspect", "--raw", `oci:${layout}:1`]));
	const names = index.manifests.map(
		({ platform }: { platform: Record<string, string> }) =>
			`${platform["architecture"]}${platform["variant"] ?? ""}`,
	);
	assert.deepEqual(names, ["amd64", "arm64", "armv7"]);
	for (const [architecture, variant] of [["arm64"], ["arm", "v7"]]) {
		const flags = ["--override-arch", architecture ?? "", "--override-os", "linux"];
		const extra = variant === undefined ? [] : ["--override-variant", variant];
		const seen = JSON.parse(tool("skopeo", [...flags, ...extra, "inspect", `oci:${layout}:1`]));
		assert.equal(seen.Architecture, architecture);
	}
	assert.equal(read(bench.path("by-platform"), "linux_arm_v7/made"), "for linux/arm/v7\n");
	const single = bench.path("single");
	await bench.build(
		[
			"--build-arg",
			"BUILDKIT_MULTI_PLATFORM=1",
			"-o",
			single,
			bench.context({ Dockerfile: "FROM scratch\nCOPY f /\n", f: "" }),
		],
		{ env: { DOCKER_DEFAULT_PLATFORM: "linux/riscv64" } },
	);
	assert.deepEqual(filesBelow(single), ["linux_riscv64/f"]);
});

test("a foreign program without an emulator is an error that names platform and remedy; buildkit-qemu is used", async () => {
	// A program's header for a machine that nobody emulates: 68HC05.
	const foreign = Buffer.alloc(4096);
	foreign.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
	foreign.writeUInt16LE(2, 16);
	foreign.writeUInt16LE(72, 18);
	const dockerfile = "FROM scratch\nCOPY --chmod=0755 sh /bin/sh\nRUN echo one\n";
	const stderr = await failure(dockerfile, ["--platform", "linux/sparc64"], { sh: foreign });
	assert.match(stderr, />>> RUN echo one\n/);
	assert.match(
		stderr,
		/no support for running processes with linux\/sparc64 platform, supported: linux\/.*QEMU/,
	);
	const bin = bench.path("bin");
	mkdirSync(bin);
	// Stands in for the emulator: says what it was given to run.
	writeFileSync(join(bin, "buildkit-qemu-sparc64"), '#!/bin/sh\necho "emulates $*" > /seen\n', {
		mode: 0o755,
	});
	const out = bench.path("emulated");
	await bench.build(
		[
			...busyboxBase,
			"--platform",
			"linux/sparc64",
			"-o",
			out,
			bench.context({
				Dockerfile: 'FROM base AS b\nSHELL ["/x"]\nRUN two\nFROM scratch\nCOPY --from=b /seen /\n',
			}),
		],
		{ env: { PATH: `${bin}:${process.env["PATH"]}` } },
	);
	assert.equal(read(out, "seen"), "emulates /x two\n");
});

test("foreign platforms run under QEMU with nothing registered on the machine: processes, users, an index of both", async () => {
	// Both machines under one name.
	const both = bench.path("both");
	tool("cp", ["-r", busyboxLayout, both]);
	tool("cp", ["-r", `${foreignLayout}/blobs`, both]);
	const architectures = [busyboxLayout, foreignLayout].map(
		(layout) =>
			JSON.parse(tool("skopeo", ["inspect", "--raw", "--config", `oci:${layout}:latest`])).architecture,
	);
	const manifests = [busyboxLayout, foreignLayout].map((layout, at) => {
		const { mediaType, digest, size } = JSON.parse(readFileSync(join(layout, "index.json"), "utf8"))
			.manifests[0];
		return { mediaType, digest, size, platform: { os: "linux", architecture: architectures[at] } };
	});
	const list = { schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests };
	const text = JSON.stringify(list);
	writeFileSync(join(both, "blobs", ...sha256(text).split(":")), text);
	const descriptor = {
		mediaType: list.mediaType,
		digest: sha256(text),
		size: text.length,
		annotations: { "org.opencontainers.image.ref.name": "latest" },
	};
	writeFileSync(join(both, "index.json"), JSON.stringify({ schemaVersion: 2, manifests: [descriptor] }));

	const context = bench.context({
		Dockerfile: `FROM base AS made
ARG TARGETARCH
RUN uname -m > /machine && cat /machine | tr a-z A-Z > /upper
RUN touch /mine && chown app:staff /mine && chmod 4750 /mine && stat -c '%u %g %a' /mine > /owner
USER app
RUN --mount=type=cache,target=/tmp/cache,uid=1000 echo $TARGETARCH > /tmp/cache/f && sh -c 'id -un; cat /tmp/cache/f' > /tmp/who
FROM made AS tested
RUN exit 3
FROM scratch
COPY --from=made /machine /upper /owner /tmp/who /
`,
	});
	const args = ["--build-context", `base=oci-layout://${both}:latest`];
	const platforms = architectures.map((name) => `linux/${name}`);
	const out = bench.path("machines");
	const archive = bench.path("machines.tar");
	await bench.build([
		...args,
		...["--platform", platforms.join(",")],
		...["-o", out, "-o", `type=oci,dest=${archive}`],
		context,
	]);
	const names: Readonly<Record<string, string>> = { amd64: "x86_64", arm64: "aarch64" };
	for (const architecture of architectures) {
		const dir = join(out, `linux_${architecture}`);
		assert.equal(read(dir, "machine"), `${names[architecture]}\n`);
		assert.equal(read(dir, "upper"), `${names[architecture]}\n`.toUpperCase());
		assert.equal(read(dir, "who"), `app\n${architecture}\n`);
		assert.equal(read(dir, "owner"), "1000 50 4750\n");
	}
	const layout = bench.path("machines-layout");
	mkdirSync(layout);
	tool("tar", ["-C", layout, "-xf", archive]);
	const index = JSON.parse(tool("skopeo", ["inspect", "--raw", `oci:${layout}`]));
	assert.deepEqual(
		index.manifests.map((each: { platform: { architecture: string } }) => each.platform.architecture),
		architectures,
	);
	const failed = await bench.run([...args, "--platform", platforms[1] ?? "", "--target", "tested", context]);
	assert.match(failed.stderr, /process "\/bin\/sh -c exit 3" did not complete successfully: exit code: 3\n/);
});

test("QEMU that is called buildkit-qemu is started the way that BuildKit starts its own", async () => {
	const { architecture } = JSON.parse(
		tool("skopeo", ["inspect", "--raw", "--config", `oci:${foreignLayout}:latest`]),
	);
	const machine = architecture === "arm64" ? "aarch64" : "x86_64";
	const bin = bench.path("qemu");
	mkdirSync(bin);
	symlinkSync(tool("which", [`qemu-${machine}-static`]).trim(), join(bin, `buildkit-qemu-${machine}`));
	const out = bench.path("patched");
	// Debian's QEMU does not start itself anew for children: what the shell does by itself is all that works this way.
	const context = bench.context({
		Dockerfile: `FROM base AS b
RUN uname -m > /seen
RUN ["/bin/busybox", "cp", "/seen", "/copy"]
FROM scratch
COPY --from=b /copy /
`,
	});
	await bench.build(
		[
			...["--build-context", `base=oci-layout://${foreignLayout}:latest`],
			...["--platform", `linux/${architecture}`, "-o", out, context],
		],
		{ env: { PATH: `${bin}:${process.env["PATH"]}` } },
	);
	assert.equal(read(out, "copy"), `${machine}\n`);
});

test("questions: check, outline and targets, as text, as JSON, with their exit codes; warnings in full", async () => {
	const context = bench.context({
		Dockerfile: `FROM scratch as one
# WHO who to greet
ARG WHO=world
# two the result
FROM one AS two
copy . /
RUN --mount=type=secret,id=key,required true
`,
		clean: "FROM scratch\nCOPY . /\n",
		broken: "FROM scratch\nCOPYY . /\n",
	});
	const checked = await bench.run(["--check", context]);
	assert.equal(checked.code, 1);
	assert.match(
		checked.stdout.toString(),
		/^Check complete, 2 warnings have been found!\n\nWARNING: FromAsCasing - https:[\s\S]*\n\/.*\/Dockerfile:1\n/,
	);
	const json = await bench.run(["--call", "check,format=json,ignorestatus=true", context]);
	assert.equal(json.code, 0);
	assert.equal(JSON.parse(json.stdout.toString()).warnings.length, 2);
	const clean = await bench.run(["--call=check", "-f", join(context, "clean"), context]);
	assert.equal(clean.stdout.toString(), "Check complete, no warnings found.\n");
	assert.equal(clean.code, 0);
	const broken = await bench.run(["--call", "lint", "-f", join(context, "broken"), context]);
	assert.equal(broken.code, 1);
	assert.match(
		broken.stderr,
		/ERROR: .*unknown instruction: COPYY \(did you mean COPY\?\)\n\/.*\/broken:2\n/,
	);
	const outline = (await bench.run(["--call", "outline", context])).stdout.toString();
	assert.match(outline, /TARGET: *two\nDESCRIPTION: *the result\n/);
	assert.match(outline, /WHO +world +who to greet\n/);
	assert.match(outline, /key +true/);
	const targets = await bench.run(["--print", "targets,format=json", context]);
	assert.deepEqual(
		JSON.parse(targets.stdout.toString()).targets.map((each: { name: string }) => each.name),
		["one", "two"],
	);
	assert.match(
		(await bench.run(["--call", "nonsense", context])).stderr,
		/unsupported request frontend\.nonsense/,
	);
	const warned = bench.context({ Dockerfile: "FROM scratch as one\nCOPY . /\n" });
	const short = (await bench.build([warned])).stderr;
	assert.match(short, /\n 1 warning found \(use --debug to expand\):\n - FromAsCasing: .* \(line 1\)\n/);
	const full = (await bench.build(["--debug", warned])).stderr;
	assert.match(full, /\n 1 warning found:\n - FromAsCasing: .*\n.*\nMore info: https:.*\nDockerfile:1\n-+\n/);
	assert.doesNotMatch((await bench.build(["-q", warned])).stderr, /warning found/);
	const strict = await failure("# check=error=true\nFROM scratch as one\nCOPY . /\n");
	assert.match(strict, / - FromAsCasing: .*\n/);
	assert.match(strict, /\nERROR: lint violation found for rules: FromAsCasing\n$/);
});

test("errors from long after parsing show the line: sources, secrets, stages", async () => {
	files.set("/file.bin", "from the web");
	const cases: readonly (readonly [instruction: string, message: RegExp])[] = [
		[`ADD ${web.url}/missing /`, /invalid response status 404/],
		[`ADD --checksum=${sha256("x")} ${web.url}/file.bin /`, /digest mismatch/],
		[`ADD ${web.url}/short /short`, /ERROR: .*short/],
		[`ADD ${gitUrl}#nosuch /`, /repository does not contain ref nosuch/],
		["RUN --mount=type=secret,id=key,required true", /secret key: not found/],
		["RUN --mount=type=ssh,required true", /no SSH key "default" forwarded from the client/],
		["COPY missing /", /"\/missing": not found/],
	];
	assert.match(await failure("FROM scratch\nCOPY --chown=bob Dockerfile /\n"), /invalid user index: -1/);
	assert.match(
		await failure("FROM scratch\n", ["--build-context", "x=/nonexistent"]),
		/failed to get build context x: .*\/nonexistent/,
	);
	for (const [instruction, message] of cases) {
		const stderr = await failure(`FROM base\n${instruction}\n`);
		assert.ok(stderr.includes(`   2 | >>> ${instruction}\n`), `${instruction}:\n${stderr}`);
		assert.match(stderr, message);
	}
});

test("hostile archives and links never leave the tree that is built", async () => {
	const outside = bench.context({ victim: "untouched" });
	const stage = bench.context({ f: "evil" });
	symlinkSync(outside, join(stage, "escape"));
	const context = bench.context({
		Dockerfile: "FROM base AS unpacked\nADD absolute.tar /in/\nFROM scratch\nCOPY --from=unpacked /in /\n",
		"up/Dockerfile": "FROM scratch\nADD up.tar /in/deep/\n",
		"link/Dockerfile": "FROM scratch\nADD link.tar /in/\n",
	});
	// GNU tar keeps names as they are with -P.
	const pack = (archive: string, name: string, mode = "-cf"): string =>
		tool("tar", ["-C", stage, "-P", mode, join(context, archive), `--transform=s,^f$,${name},`, "f"]);
	pack("absolute.tar", `${outside}/victim`);
	pack("up/up.tar", `../../../../../../../../../../../../..${outside}/victim`);
	tool("tar", ["-C", stage, "-cf", join(context, "link/link.tar"), "escape"]);
	pack("link/link.tar", "escape/victim", "-rf");
	for (const name of ["", "up", "link"]) {
		const out = bench.path(`hostile${name}`);
		const result = await bench.run([...busyboxBase, "-o", out, join(context, name)]);
		assert.ok(result.code === 0 || /ERROR: /.test(result.stderr), result.stderr);
		assert.equal(read(outside, "victim"), "untouched", result.stderr);
	}
	// Links in the tree that is built are followed inside of it only.
	const found = await buildTree(
		`FROM base AS b
RUN mkdir -p ${outside} && ln -s ${outside} /out && ln -s ../../../../../..${outside} /up
WORKDIR /out/made
COPY f victim
COPY f /up/victim2
FROM scratch
COPY --from=b ${outside} /found
`,
		[],
		{ f: "inside" },
	);
	assert.deepEqual(filesBelow(join(found, "found")), ["made/victim", "victim2"]);
	assert.deepEqual(filesBelow(outside), ["victim"]);
	// The context's links do not lead out of it either.
	const leak = bench.context({ Dockerfile: "FROM scratch\nCOPY link/victim /\n" });
	symlinkSync(outside, join(leak, "link"));
	assert.match((await bench.run([leak])).stderr, /"\/link\/victim": not found/);
});

test("Dockerfiles that are made to hurt end soon with an error or an image", async () => {
	const many = `FROM scratch\n${"ENV A=b\n".repeat(100_000)}`;
	assert.equal((await bench.run([bench.context({ Dockerfile: many })])).code, 0);
	const cases = [
		"FROM b AS a\nFROM a AS b\n",
		"FROM scratch AS a\nCOPY --from=b / /\nFROM scratch AS b\nCOPY --from=a / /\n",
		"FROM scratch\nADD git://-oProxyCommand=x/y.git /\n",
		"FROM scratch\nADD ssh://-oProxyCommand=touch/y.git /\n",
		`FROM scratch\nONBUILD ${"ONBUILD ".repeat(1000)}RUN x\n`,
		`FROM scratch\nARG A0=xxxx\n${Array.from({ length: 64 }, (_, at) => `ARG A${at + 1}=$A${at}$A${at}`).join("\n")}\nENV B=$A64\n`,
	];
	for (const dockerfile of cases) {
		assert.match(await failure(dockerfile), /\nERROR: .+\n$/);
	}
});
