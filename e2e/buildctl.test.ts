import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { encodeDefinition } from "../src/llb/definition-message.ts";
import { copy, mkfile } from "../src/llb/file-steps.ts";
import { local } from "../src/llb/sources.ts";
import { scratch } from "../src/llb/state.ts";
import { DaemonBench } from "./support/daemon.ts";
import { busyboxLayout, projectRoot } from "./support/slipway.ts";

const bench = new DaemonBench();
after(() => bench[Symbol.asyncDispose]());

const buildctl = join(bench.dir, "bin/buildctl");
const index = JSON.parse(readFileSync(join(busyboxLayout, "index.json"), "utf8"));
const base = [
	"--oci-layout",
	`bb=${busyboxLayout}`,
	"--opt",
	`context:base=oci-layout://bb@${index.manifests[0].digest}`,
];

before(async () => {
	mkdirSync(join(bench.dir, "bin"));
	// The program is what it is called.
	for (const name of ["buildctl", "buildkitd"]) {
		symlinkSync(join(projectRoot, "bin/slipway"), join(bench.dir, "bin", name));
	}
	await bench.startDaemon({ command: [join(bench.dir, "bin/buildkitd"), "--addr", bench.address] });
});

interface Said {
	readonly code: number | null;
	readonly stdout: string;
	readonly stderr: string;
}

function run(
	args: readonly string[],
	options: { readonly input?: Uint8Array; readonly env?: object } = {},
): Said {
	const { status, stdout, stderr } = spawnSync(buildctl, args, {
		cwd: bench.dir,
		encoding: "buffer",
		timeout: 60_000,
		env: { PATH: process.env["PATH"], HOME: bench.dir, BUILDKIT_HOST: bench.address, ...options.env },
		...(options.input === undefined ? {} : { input: options.input }),
	});
	return { code: status, stdout: stdout.toString(), stderr: stderr.toString() };
}

function good(args: readonly string[], options: Parameters<typeof run>[1] = {}): Said {
	const said = run(args, options);
	assert.equal(said.code, 0, `buildctl ${args.join(" ")}\n${said.stderr}`);
	return said;
}

function dockerfile(context: string): readonly string[] {
	const locals = ["--local", `context=${context}`, "--local", `dockerfile=${context}`];
	return ["build", "--progress", "plain", "--frontend", "dockerfile.v0", ...locals, ...base];
}

test("build: options, secrets, environment, results in all places", () => {
	const context = bench.context({
		Dockerfile:
			"FROM base\nARG WHO\nARG FROM_ENV\nRUN --mount=type=secret,id=s echo $WHO $FROM_ENV $(cat /run/secrets/s) > /said\nFROM scratch\nCOPY --from=0 /said /\nCOPY file /\n",
		file: "x",
	});
	writeFileSync(join(bench.dir, "secret"), "hush");
	const built = good(
		[
			...dockerfile(context),
			"--opt",
			"build-arg:WHO=you",
			"--opt",
			"build-arg:FROM_ENV",
			"--secret",
			"id=s,src=secret",
			"--output",
			"type=local,dest=out",
			"--output",
			"type=oci,dest=layout,tar=false,name=example.org/x:y",
			"--metadata-file",
			"meta.json",
			"--ref-file",
			"ref",
		],
		{ env: { FROM_ENV: "there" } },
	);
	assert.match(built.stderr, /^#\d+ \[stage-0 2\/2\] RUN|^#\d+ \[stage-0 /m);
	assert.equal(readFileSync(join(bench.dir, "out/said"), "utf8"), "you there hush\n");
	const layout = JSON.parse(readFileSync(join(bench.dir, "layout/index.json"), "utf8"));
	assert.equal(layout.manifests[0].annotations["io.containerd.image.name"], "example.org/x:y");
	const metadata = JSON.parse(readFileSync(join(bench.dir, "meta.json"), "utf8"));
	assert.equal(metadata["containerimage.digest"], layout.manifests[0].digest);
	const ref = readFileSync(join(bench.dir, "ref"), "utf8");
	assert.match(ref, /^[a-z0-9]{25}$/);
	assert.match(good(["debug", "logs", "--progress", "plain", ref]).stdout, /RUN --mount=type=secret/);
	const tar = good([...dockerfile(context), "--secret", "id=s,src=secret", "--output", "type=tar"]);
	assert.ok(tar.stdout.includes("ustar"), "a tar on standard output");
});

test("build: a graph on standard input; --no-cache runs it again", () => {
	const context = bench.context({ file: "from the context" });
	const graph = scratch()
		.file(copy(local("src"), "/file", "/"))
		.file(mkfile("/made", 0o600, "made"));
	const input = encodeDefinition(graph.marshal());
	const args = [
		"build",
		"--progress",
		"plain",
		"--local",
		`src=${context}`,
		"--output",
		"type=local,dest=graph",
	];
	good(args, { input });
	assert.equal(readFileSync(join(bench.dir, "graph/made"), "utf8"), "made");
	assert.match(good(args, { input }).stderr, /mkfile \/made\n#\d+ CACHED/);
	assert.doesNotMatch(good([...args, "--no-cache"], { input }).stderr, /mkfile \/made\n#\d+ CACHED/);
	assert.match(good(["debug", "dump-llb"], { input }).stdout, /^\{"Op":\{.*"local:\/\/src"/);
	assert.match(good(["debug", "dump-llb", "--dot"], { input }).stdout, /mkfile\{path=\/made\}.*shape="note"/);
});

test("questions are answered as the frontend says", () => {
	const context = bench.context({ Dockerfile: "FROM scratch AS one\nARG A=b\n" });
	const asked = good([...dockerfile(context), "--opt", "requestid=frontend.outline"]);
	assert.match(asked.stdout, /BUILD ARG +VALUE +DESCRIPTION\nA +b/);
});

test("errors: the source's lines, one sentence, exit code 1", () => {
	const context = bench.context({ Dockerfile: "FROM base\nRUN exit 5\n" });
	const failed = run(dockerfile(context));
	assert.equal(failed.code, 1);
	assert.match(
		failed.stderr,
		/Dockerfile:2\n-+\n.*\n {3}2 \| >>> RUN exit 5\n.*\n-+\nerror: failed to solve: process "\/bin\/sh -c exit 5" did not complete successfully: exit code: 5\n$/,
	);
	const cases: readonly (readonly [args: readonly string[], error: string])[] = [
		[["build", "--frontend", "dockerfile.v0", "--output", "dest=x"], "--output requires type=<type>"],
		[
			["build", "--frontend", "dockerfile.v0", "--output", "type=image,output=x"],
			"output=x not supported for --output, you meant dest=x?",
		],
		[
			["build", "--frontend", "dockerfile.v0", "--output", "type=local"],
			"invalid output option: output: output directory is required for local exporter",
		],
		[
			["build", "--frontend", "dockerfile.v0", "--local", "context=/nowhere"],
			"invalid local: resolve : lstat /nowhere: no such file or directory",
		],
		[["build"], "empty definition sent to build. Specify --frontend instead?"],
		[["debug", "ctl", "x"], "must specify one of --pin, --unpin, --delete"],
		[["debug", "logs", "nosuchref"], "rpc error: code = NotFound desc = no such job nosuchref"],
		[
			["--addr", "unix:///nowhere.sock", "du"],
			'failed to call diskusage: Unavailable: connection error: desc = "transport: Error while dialing: dial unix /nowhere.sock: connect: no such file or directory"',
		],
		[
			["--addr", "unix:///nowhere.sock", "build", "--frontend", "dockerfile.v0", "--allow", "magic"],
			"unknown entitlement magic",
		],
		[
			["build", "--frontend", "dockerfile.v0", "--registry-auth-tlscontext", "host=x"],
			"--registry-auth-tlscontext requires ca=<ca> or cert=<cert>,key=<key> or insecure=true",
		],
		[
			["build", "--frontend", "dockerfile.v0", "--trace", "/nowhere/x"],
			"could not write /nowhere/x: ENOENT: no such file or directory, open '/nowhere/x'",
		],
		[
			["--tlsdir", "x", "--tlscert", "y", "du"],
			"cannot specify tlsdir and tlscacert/tlscert/tlskey at the same time",
		],
	];
	for (const [args, error] of cases) {
		const said = run(args, { input: new Uint8Array() });
		assert.equal(said.code, 1, args.join(" "));
		assert.equal(said.stderr, `error: ${error}\n`, args.join(" "));
	}
});

test("a command line that is wrong in itself: said as BuildKit's client says it, with its exit codes", () => {
	const wrong: readonly (readonly [args: readonly string[], message: string])[] = [
		[["build", "--nosuch"], "flag provided but not defined: -nosuch"],
		[["build", "--output"], "flag needs an argument: --output"],
		[["du", "--verbose=x"], 'invalid value "x" for flag -verbose: parse error'],
		[
			["prune", "--keep-duration", "x"],
			'invalid value "x" for flag -keep-duration: time: invalid duration "x"',
		],
		[
			["prune", "--keep-storage", "x"],
			'invalid value "x" for flag -keep-storage: strconv.ParseFloat: parsing "x": invalid syntax',
		],
	];
	for (const [args, message] of wrong) {
		const said = run(args);
		assert.equal(said.code, 1);
		assert.equal(said.stderr, `Incorrect Usage: ${message}\n\nerror: ${message}\n`);
		assert.equal(said.stdout, "");
	}
	for (const args of [["frobnicate"], ["debug", "frobnicate"]]) {
		const said = run(args);
		assert.equal(said.code, 3);
		assert.equal(said.stderr, "No help topic for 'frobnicate'\n");
	}
});

test("build: --trace has a line of JSON for each status, --debug-json-cache-metrics counts what the cache saved", () => {
	const args = dockerfile(bench.context({ Dockerfile: "FROM base\nRUN true\nRUN echo metrics\n" }));
	const trace = join(bench.dir, "trace.json");
	const metricsOf = (text: string): Record<string, number> =>
		JSON.parse(text.trim().split("\n").at(-1) ?? "");
	const first = good([...args, "--trace", trace, "--debug-json-cache-metrics", "stdout"]);
	assert.match(first.stderr, /^time="[^"]+" level=info msg="tracing logs to .*trace\.json"\n/);
	assert.match(first.stdout, /^cache miss: \[2\/3\] RUN echo metrics$/m);
	const statuses = readFileSync(trace, "utf8")
		.trimEnd()
		.split("\n")
		.map((line) => JSON.parse(line) as { readonly vertexes?: readonly object[] });
	assert.ok(statuses.some(({ vertexes = [] }) => vertexes.length > 0));
	const lines = statuses.length;
	const again = good([...args, "--trace", trace, "--debug-json-cache-metrics", "metrics.json"]);
	assert.equal(again.stdout, "");
	assert.ok(readFileSync(trace, "utf8").trimEnd().split("\n").length > lines, "the file goes on");
	const before = metricsOf(first.stdout);
	const text = readFileSync(join(bench.dir, "metrics.json"), "utf8");
	const after = metricsOf(text);
	assert.doesNotMatch(text, /RUN/);
	assert.deepEqual(Object.keys(after), Object.keys(before));
	assert.ok(Number(after["user_cached"]) >= 2);
	assert.ok(Number(after["miss"]) < Number(before["miss"]));
});

test("build: --proxy-network is asked of the builder, and Slipway's refuses it", () => {
	const said = run([...dockerfile(bench.context({ Dockerfile: "FROM base\n" })), "--proxy-network"]);
	assert.equal(said.code, 1);
	assert.match(said.stderr, /proxy network is not supported/);
});

test("the trace that a build's history keeps has the spans of buildctl, under the one of its environment", () => {
	const refFile = join(bench.dir, "traced-ref");
	const traceId = "0af7651916cd43dd8448eb211c80319c";
	good(
		[...dockerfile(bench.context({ Dockerfile: "FROM base\nRUN echo traced\n" })), "--ref-file", refFile],
		{
			env: { TRACEPARENT: `00-${traceId}-b7ad6b7169203331-01` },
		},
	);
	const ref = readFileSync(refFile, "utf8");
	// It is kept when spans have stopped coming.
	let shown = run(["debug", "logs", "--trace", ref]);
	for (const end = performance.now() + 30_000; shown.code !== 0 && performance.now() < end; ) {
		shown = run(["debug", "logs", "--trace", ref]);
	}
	const spans = shown.stdout
		.trim()
		.split("\n")
		.map((line) => JSON.parse(line));
	assert.ok(spans.every(({ SpanContext }) => SpanContext.TraceID === traceId));
	const command = spans.find(({ Name }) => Name === "build");
	assert.equal(command?.Parent.SpanID, "b7ad6b7169203331");
	const call = spans.find(
		({ Name, SpanKind }) => Name === "moby.buildkit.v1.Control/Solve" && SpanKind === 3,
	);
	assert.equal(call?.Parent.SpanID, command?.SpanContext.SpanID);
});

test("du, prune, histories, workers, info", () => {
	const used = good(["du"]).stdout;
	assert.match(used, /^ID\t+RECLAIMABLE\tSIZE\tLAST ACCESSED\n/);
	assert.match(used, /\nTotal:\t+[\d.]+[kMG]?B\n$/);
	const json = JSON.parse(good(["du", "--format", "json"]).stdout);
	assert.ok(json.length > 0 && json.every((each: { readonly id: string }) => each.id !== ""));
	assert.match(
		good(["du", "-v", "--filter", "type==source.local"]).stdout,
		/^ID:\t.*\n(.*\n)*Type:\t\tsource\.local\n/,
	);
	const histories = good(["debug", "histories"]).stdout.split("\n");
	assert.match(histories[0] ?? "", /^TYPE\t+REF\t+CREATED\t+COMPLETED\t+GENERATION\tPINNED$/);
	assert.match(histories[1] ?? "", /^COMPLETE\t[a-z0-9]{25}\t/);
	const [, ref = ""] = /^COMPLETE\t(\w+)/.exec(histories[1] ?? "") ?? [];
	good(["debug", "ctl", "--pin", ref]);
	good(["prune-histories"]);
	assert.match(good(["debug", "histories"]).stdout, new RegExp(`^TYPE.*\nCOMPLETE\t${ref}\t.*\t\\*\n$`));
	assert.match(
		good(["debug", "workers"]).stdout,
		/^ID\t+PLATFORMS\n\w+\tlinux\/amd64|^ID\t+PLATFORMS\n\w+\tlinux\//,
	);
	assert.match(good(["debug", "info"]).stdout, /^BuildKit: {3}slipway v\S+ \S+\nDockerfile: \S+\n$/);
	const pruned = good(["prune", "--all"]).stdout;
	assert.match(pruned, /^ID\t+RECLAIMABLE\tSIZE\tLAST ACCESSED\n(.*\n)+Total:\t[\d.]+[kMG]?B\n$/);
	assert.match(good(["du"]).stdout, /\nReclaimable:\t0B\n/);
});

test("dial-stdio carries the API, and addresses that tunnel through a program use it", () => {
	// Stands for docker, whose only part is to run the command in a container.
	const docker = join(bench.dir, "bin/docker");
	writeFileSync(docker, `#!/bin/sh\n[ "$1 $2 $3" = "exec -i box" ] || exit 9\nshift 3\nexec "$@"\n`);
	chmodSync(docker, 0o755);
	const env = { PATH: `${join(bench.dir, "bin")}:${process.env["PATH"]}` };
	const context = bench.context({ Dockerfile: "FROM scratch\nCOPY f /\n", f: "through" });
	good(
		["--addr", "docker-container://box", ...dockerfile(context), "--output", "type=local,dest=tunnelled"],
		{ env },
	);
	assert.equal(readFileSync(join(bench.dir, "tunnelled/f"), "utf8"), "through");
	assert.ok(!existsSync(join(bench.dir, "tunnelled/Dockerfile")));
});
