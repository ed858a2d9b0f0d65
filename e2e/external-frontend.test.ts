import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { constants, copyFileSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { build } from "esbuild";
import { readImage } from "./support/image.ts";
import { type Finished, projectRoot, Workbench } from "./support/slipway.ts";

/** Frontends that are images: here one with Node and `support/frontend-program.ts`. */

const bench = new Workbench();
let frontend: readonly string[];

before(async () => {
	const files = bench.context({
		Dockerfile: 'FROM scratch\nCOPY root /\nENTRYPOINT ["/node", "/frontend"]\n',
	});
	const root = join(files, "root");
	for (const library of sharedLibraries(process.execPath)) {
		mkdirSync(join(root, dirname(library)), { recursive: true });
		copyFileSync(library, join(root, library));
	}
	copyFileSync(process.execPath, join(root, "node"), constants.COPYFILE_FICLONE);
	await build({
		absWorkingDir: projectRoot,
		entryPoints: ["e2e/support/frontend-program.ts"],
		outfile: join(root, "frontend"),
		bundle: true,
		platform: "node",
		format: "cjs",
		logLevel: "error",
	});
	const layout = bench.path("frontend");
	const output = `type=oci,tar=false,dest=${layout},name=frontend:latest,compression=uncompressed`;
	await bench.build(["-o", output, files]);
	frontend = ["--build-context", `example.com/frontend=oci-layout://${layout}:latest`];
});

after(() => bench[Symbol.dispose]());

/** Absolute paths, the loader among them. */
function sharedLibraries(file: string): readonly string[] {
	const list = execFileSync("ldd", [file], { encoding: "utf8" });
	return [...list.matchAll(/(\/\S+) \(0x/g)].map(([, path = ""]) => path);
}

const dockerfile = "# syntax=example.com/frontend some words\nanything\n";

function run(mode: string, args: readonly string[] = []): Promise<Finished> {
	const context = bench.context({ Dockerfile: dockerfile, Other: "FROM scratch\nCOPY Other /\n" });
	return bench.run([...frontend, "--build-arg", `mode=${mode}`, ...args, context]);
}

test("reads what it needs through the gateway, and its result is exported", async () => {
	const out = bench.path("seen");
	const { code, stderr } = await run("report", ["-o", out]);
	assert.equal(code, 0, stderr);
	const seen = JSON.parse(readFileSync(join(out, "seen.json"), "utf8")) as {
		readonly options: Readonly<Record<string, string>>;
	};
	const { options, ...rest } = seen;
	assert.deepEqual(rest, {
		dockerfile,
		product: "buildkit",
		worker: true,
		capabilities: true,
		metadata: ["frontend.bin"],
	});
	assert.equal(options["cmdline"], "example.com/frontend some words");
	assert.equal(options["source"], "example.com/frontend");
	assert.equal(options["build-arg:mode"], "report");
});

test("may ask the built-in one, whose result it hands on with its config", async () => {
	const out = bench.path("asked.tar");
	const { code, stderr } = await run("ask", ["-o", `type=oci,dest=${out}`]);
	assert.equal(code, 0, stderr);
	const image = readImage(out, bench.dir);
	assert.equal(image.manifest.layers.length, 1);
	assert.match(stderr, /COPY Other \//);
});

for (const [mode, message] of [
	["refuse", "this frontend does not want to"],
	["die", "exit code: 3: last words"],
	["die after", "exit code: 4"],
	["say nothing", "no result for incomplete build"],
] as const) {
	test(`${mode}: its error is the build's, with the line that names it`, async () => {
		const { code, stderr } = await run(mode);
		assert.equal(code, 1);
		assert.match(stderr, new RegExp(`^ERROR: (?:failed to solve: )?${message}$`, "m"));
		assert.match(stderr, /^ {3}1 \| >>> # syntax=example.com\/frontend some words$/m);
	});
}

test("one that is not there is named, with its line", async () => {
	const context = bench.context({ Dockerfile: "# syntax=127.0.0.1:1/none\nFROM scratch\n" });
	const { code, stderr } = await bench.run([context]);
	assert.equal(code, 1);
	assert.match(stderr, /ERROR: .*failed to resolve source metadata for 127.0.0.1:1\/none:latest/);
	assert.match(stderr, />>> # syntax=127.0.0.1:1\/none/);
});
