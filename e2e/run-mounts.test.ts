import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { readImage } from "./support/image.ts";
import { busyboxBase, Workbench } from "./support/slipway.ts";
import { tool } from "./support/tools.ts";

const bench = new Workbench();
/** One engine for several builds at once. */
const shared = new Workbench({ background: true });
after(() => {
	bench[Symbol.dispose]();
	shared[Symbol.dispose]();
});

/** Lines that a step printed, without number and time. */
function printed(stderr: string): readonly string[] {
	return stderr.split("\n").flatMap((line) => /^#\d+ \d+\.\d+ (.*)$/.exec(line)?.[1] ?? []);
}

test("bind: from the context, a stage and an image; what is written is seen by nobody else", async () => {
	const context = bench.context({
		"dir/file": "of the context\n",
		Dockerfile: `FROM base AS one
RUN echo "of the stage" > /file
FROM base
RUN --mount=type=bind,source=dir,target=/a --mount=type=bind,from=one,source=/file,target=/b --mount=type=bind,from=base,source=/bin,target=/c \
    cat /a/file /b && test -x /c/busybox && ! touch /a/new 2>/dev/null && ls -d /a /b /c | wc -l
RUN --mount=type=bind,source=dir,target=/a,rw --mount=type=bind,from=one,target=/one,rw \
    echo changed > /a/file && echo changed > /one/file && touch /a/new && cat /a/file
RUN --mount=type=bind,source=dir,target=/a --mount=type=bind,from=one,target=/one cat /a/file /one/file && ls /a && ! ls /b
`,
	});
	const out = bench.path("bind.tar");
	const { stderr } = await bench.build([...busyboxBase, "-o", `type=oci,dest=${out}`, context]);
	assert.deepEqual(
		printed(stderr).filter((line) => !line.startsWith("ls:")),
		["of the context", "of the stage", "3", "changed", "of the context", "of the stage", "file"],
	);
	assert.equal(readFileSync(join(context, "dir/file"), "utf8"), "of the context\n");
	const image = readImage(out, bench.dir);
	for (let layer = 1; layer < image.manifest.layers.length; layer++) {
		assert.deepEqual(
			image.layerListing(layer).filter((line) => / (?:\.\/)?(?:a|b|c|one)\//.test(line)),
			[],
		);
	}
});

test("tmpfs has the size that it was given; an unknown one is an error of the line", async () => {
	const context = bench.context({
		Dockerfile:
			"FROM base\nRUN --mount=type=tmpfs,target=/t,size=1m mount | grep ' /t ' && ! dd if=/dev/zero of=/t/x bs=64k count=17 2>/dev/null && ls /t\nRUN ! ls /t 2>/dev/null\n",
	});
	const { stderr } = await bench.build([...busyboxBase, context]);
	assert.match(stderr, /size=1024k/);
	const bad = bench.context({ Dockerfile: "FROM base\nRUN --mount=type=tmpfs,target=/t,size=big true\n" });
	const result = await bench.run([...busyboxBase, bad]);
	assert.match(result.stderr, /2 \| >>> RUN --mount=type=tmpfs,target=\/t,size=big true/);
	assert.match(result.stderr, /ERROR: .*size/);
});

test("cache: contents stay from build to build and across builders, and are in no layer", async () => {
	const dockerfile = (n: number): string =>
		`FROM base\nRUN --mount=type=cache,target=/c echo ${n} >> /c/all; cat /c/all; ls -ld /c | cut -c1-10; ls -nd /c | awk '{print $3, $4}'\n`;
	const outputs: (readonly string[])[] = [];
	for (const n of [1, 2]) {
		const out = bench.path(`cache${n}.tar`);
		const context = bench.context({ Dockerfile: dockerfile(n) });
		const { stderr } = await bench.build([...busyboxBase, "-o", `type=oci,dest=${out}`, context]);
		outputs.push(printed(stderr));
		const image = readImage(out, bench.dir);
		assert.doesNotMatch(image.layerListing(1).join("\n"), /all|\bc\//);
	}
	assert.deepEqual(outputs, [
		["1", "drwxr-xr-x", "0 0"],
		["1", "2", "drwxr-xr-x", "0 0"],
	]);
});

test("cache: id, owner, mode, first content, read-only, namespaces", async () => {
	const run = async (line: string, ...args: readonly string[]): Promise<readonly string[]> => {
		const context = bench.context({
			Dockerfile: `FROM base AS first\nRUN mkdir /seed && echo seeded > /seed/file\nFROM base\n${line}\n`,
		});
		return printed((await bench.build([...busyboxBase, ...args, context])).stderr);
	};
	const owner = "ls -nd /o | awk '{print $1, $3, $4}'";
	const mounted = (options: string, command: string): string =>
		`RUN --mount=type=cache,${options} ${command}`;
	assert.deepEqual(await run(mounted("target=/o,id=owned,uid=7,gid=8,mode=0750", owner)), ["drwxr-x--- 7 8"]);
	assert.deepEqual(
		await run(mounted("target=/s,id=seeded,from=first,source=/seed", "cat /s/file; echo 1 > /s/x")),
		["seeded"],
	);
	assert.deepEqual(
		await run(mounted("target=/s,id=seeded,from=first,source=/seed", "cat /s/file /s/x # 2")),
		["seeded", "1"],
	);
	assert.deepEqual(
		await run(mounted("target=/r,id=seeded,from=first,source=/seed,ro", "! touch /r/y && cat /r/x")),
		["touch: /r/y: Read-only file system", "1"],
	);
	const ns = (name: string): readonly string[] => ["--build-arg", `BUILDKIT_CACHE_MOUNT_NS=${name}`];
	assert.deepEqual(await run(mounted("target=/n", "echo one > /n/f; ls /n"), ...ns("a")), ["f"]);
	assert.deepEqual(await run(mounted("target=/n", "ls /n # b"), ...ns("b")), []);
	assert.deepEqual(await run(mounted("target=/n", "cat /n/f # a"), ...ns("a")), ["one"]);
});

test("cache: --no-cache begins with an empty one, which all steps of the build share", async () => {
	const context = bench.context({
		Dockerfile:
			"FROM base\nRUN --mount=type=cache,target=/c,id=fresh echo one >> /c/all; cat /c/all\nRUN --mount=type=cache,target=/c,id=fresh echo two >> /c/all; cat /c/all\n",
	});
	const build = async (...args: readonly string[]): Promise<readonly string[]> =>
		printed((await bench.build([...busyboxBase, ...args, context])).stderr);
	assert.deepEqual(await build(), ["one", "one", "two"]);
	assert.deepEqual(await build("--no-cache"), ["one", "one", "two"]);
});

/** The background builder is there already when several builds begin at once. */
before(async () => {
	await shared.build([...busyboxBase, shared.context({ Dockerfile: "FROM base\n" })]);
});

test("cache, shared: two builds see each other's files at the same time", async () => {
	const build = (mine: string, other: string): Promise<{ readonly stderr: string }> =>
		shared.build([
			...busyboxBase,
			shared.context({
				Dockerfile: `FROM base\nRUN --mount=type=cache,target=/c,id=meet touch /c/${mine}; i=0; until [ -e /c/${other} ]; do sleep 0.05; i=$((i+1)); [ $i -lt 400 ] || exit 9; done\n`,
			}),
		]);
	await Promise.all([build("one", "two"), build("two", "one")]);
});

test("cache, private: two builds at once have one each", async () => {
	const build = (mine: string): Promise<{ readonly stderr: string }> =>
		shared.build([
			...busyboxBase,
			shared.context({
				Dockerfile: `FROM base
RUN --mount=type=cache,target=/c,id=apart,sharing=private --mount=type=cache,target=/m,id=apart-meet \
    touch /c/${mine} /m/${mine}; i=0; until [ $(ls /m | wc -l) = 2 ]; do sleep 0.05; i=$((i+1)); [ $i -lt 400 ] || exit 9; done; ls /c
`,
			}),
		]);
	const [one, two] = await Promise.all([build("one"), build("two")]);
	assert.deepEqual([printed(one.stderr), printed(two.stderr)], [["one"], ["two"]]);
});

test("cache, locked: builds at once take turns and lose nothing", async () => {
	const build = (name: string): Promise<{ readonly stderr: string }> =>
		shared.build([
			...busyboxBase,
			shared.context({
				Dockerfile: `FROM base\nRUN --mount=type=cache,target=/c,id=turns,sharing=locked mkdir /c/taken && for i in $(seq 20); do n=$(cat /c/n 2>/dev/null || echo 0); echo $((n+1)) > /c/n; done; rmdir /c/taken; echo ${name}; cat /c/n\n`,
			}),
		]);
	const all = await Promise.all(["a", "b", "c"].map(build));
	const counts = all.map(({ stderr }) => Number(printed(stderr)[1]));
	assert.deepEqual(
		counts.sort((a, b) => a - b),
		[20, 40, 60],
	);
});

test("cache, locked: two that are wanted in either order are no deadlock; one that is wanted twice neither", async () => {
	const mount = (id: string): string => `--mount=type=cache,target=/${id},id=${id},sharing=locked`;
	const build = (first: string, second: string): Promise<unknown> =>
		shared.build([
			...busyboxBase,
			shared.context({
				Dockerfile: `FROM base\n${[1, 2, 3, 4].map((n) => `RUN ${mount(first)} ${mount(second)} sleep 0.0${n}`).join("\n")}\n`,
			}),
		]);
	await Promise.all([build("left", "right"), build("right", "left")]);
	const twice = shared.context({
		Dockerfile:
			"FROM base\nRUN --mount=type=cache,target=/x,id=two,sharing=locked --mount=type=cache,target=/y,id=two,sharing=locked touch /x/f && ls /y\n",
	});
	assert.deepEqual(printed((await shared.build([...busyboxBase, twice])).stderr), ["f"]);
});

test("cache: one whose holder was killed is the next one's", async () => {
	const mount = "--mount=type=cache,target=/c,id=killed,sharing=locked";
	const context = bench.context({
		Dockerfile: `FROM base\nRUN ${mount} echo kept > /c/f; sync; echo held; sleep 300\n`,
	});
	const running = bench.start([...busyboxBase, context]);
	await running.sees(/^#\d+ [\d.]+ held/m);
	running.child.kill("SIGKILL");
	await running.finished;
	const next = bench.context({ Dockerfile: `FROM base\nRUN ${mount} cat /c/f\n` });
	assert.deepEqual(printed((await bench.build([...busyboxBase, next])).stderr), ["kept"]);
});

test("secret: mounts with owner and mode, variables, required and optional ones", async () => {
	writeFileSync(bench.path("file"), "of a file");
	const context = bench.context({
		Dockerfile: `FROM base
RUN --mount=type=secret,id=f cat /run/secrets/f; ls -n /run/secrets/f | awk '{print $1, $3, $4}'
RUN --mount=type=secret,id=f,target=/s/x,mode=0440,uid=5,gid=6 cat /s/x; ls -n /s/x | awk '{print $1, $3, $4}'; ! echo x > /s/x
RUN --mount=type=secret,id=v,env=TOKEN [ "$TOKEN" = "of a variable" ] && [ ! -e /run/secrets/v ]
RUN --mount=type=secret,id=i cat /run/secrets/i
RUN --mount=type=secret,id=none [ ! -e /run/secrets/none ] && [ ! -e /run/secrets ] && [ ! -e /s ]
`,
	});
	const secrets = [
		"--secret",
		`id=f,src=${bench.path("file")}`,
		"--secret",
		"id=v,env=V",
		"--secret",
		"id=i,src=-",
	];
	const { stderr } = await bench.build([...busyboxBase, ...secrets, context], {
		env: { V: "of a variable" },
		input: "of the standard input",
	});
	const lines = printed(stderr).join("\n");
	assert.match(lines, /of a file.*-r-------- 0 0/s);
	assert.match(lines, /-r--r----- 5 6/);
	assert.match(lines, /can't create \/s\/x: Read-only file system/);
	assert.match(lines, /of the standard input/);
	const required = bench.context({
		Dockerfile: "FROM base\nRUN --mount=type=secret,id=none,required=true true\n",
	});
	const result = await bench.run([...busyboxBase, required]);
	assert.match(result.stderr, /ERROR: .*secret none: not found/);
});

test("secret: nothing that a build leaves has its bytes", async () => {
	using other = new Workbench();
	const secret = `s3cret-${process.hrtime.bigint()}-of-nobody-else`;
	writeFileSync(other.path("outside"), secret);
	const context = other.context({
		Dockerfile: `FROM base
RUN --mount=type=secret,id=s,target=/etc/s --mount=type=secret,id=s,env=S [ "$(cat /etc/s)" = "$S" ] && echo read > /read
RUN --mount=type=secret,id=s,env=S --mount=type=cache,target=/c test -n "$S" && touch /c/x
`,
	});
	const failing = other.context({
		Dockerfile:
			'FROM base\nRUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s test -n "$S" && exit 3\n',
	});
	const args = [...busyboxBase, "--secret", `id=s,src=${other.path("outside")}`];
	const left = other.path("left");
	tool("mkdir", [left]);
	const { stderr, stdout } = await other.build([
		...args,
		...["-t", "hidden:1", "--metadata-file", join(left, "metadata.json"), "-o", join(left, "files")],
		...["-o", `type=oci,dest=${join(left, "plain.tar")},compression=uncompressed`],
		...["-o", `type=oci,dest=${join(left, "layout")},tar=false`],
		context,
	]);
	const raw = await other.build([...args, "--progress", "rawjson", "--no-cache", context]);
	const failed = await other.run([...args, failing]);
	assert.match(failed.stderr, /exit code: 3/);
	writeFileSync(join(left, "logs"), `${stderr}${stdout}${raw.stderr}${failed.stderr}`);
	const blobs = join(left, "layout/blobs/sha256");
	for (const name of readdirSync(blobs)) {
		tool("sh", ["-c", `gzip -dc ${join(blobs, name)} > ${join(left, name)} 2>/dev/null || true`]);
	}
	assert.ok(readFileSync(join(left, "files/read"), "utf8") === "read\n");
	tool("rm", [other.path("outside")]);
	const found = tool("sh", ["-c", `grep -rlaF ${secret} ${other.dir} || true`]);
	assert.equal(found, "");
	// The search itself finds what is there.
	writeFileSync(join(left, "probe"), secret);
	assert.notEqual(tool("sh", ["-c", `grep -rlaF ${secret} ${other.dir} || true`]), "");
});
