import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
	existsSync,
	mkdirSync,
	mkdtempSync,
	readFileSync,
	rmSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { writeTypes } from "../scripts/types.ts";
import { projectRoot } from "./support/slipway.ts";

const directory = mkdtempSync(join(tmpdir(), "slipway-library-"));
after(() => rmSync(directory, { recursive: true, force: true }));

/** A program's project that has the package installed; what a README shows runs in it as it stands. */
before(() => {
	writeTypes();
	mkdirSync(join(directory, "node_modules/@types"), { recursive: true });
	symlinkSync(projectRoot, join(directory, "node_modules/slipway"));
	symlinkSync(join(projectRoot, "node_modules/@types/node"), join(directory, "node_modules/@types/node"));
	writeFileSync(join(directory, "package.json"), '{"type":"module"}');
	writeFileSync(join(directory, "hello.txt"), "hello\n");
});

function run(file: string): string {
	const { status, stdout, stderr } = spawnSync(process.execPath, [join(directory, file)], {
		cwd: directory,
		encoding: "utf8",
		timeout: 60_000,
	});
	assert.equal(status, 0, stderr.slice(-3000));
	return stdout;
}

const readme = readFileSync(join(projectRoot, "README.md"), "utf8");
const examples = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code = ""], index) => {
	return { file: `example${index}.ts`, code };
});

test("the README's examples are right for the package's types, checked as strictly as can be", () => {
	assert.equal(examples.length, 2);
	for (const { file, code } of examples) {
		writeFileSync(join(directory, file), code);
	}
	const config = {
		compilerOptions: {
			target: "es2024",
			lib: ["es2024", "esnext.disposable"],
			module: "nodenext",
			strict: true,
			noEmit: true,
			exactOptionalPropertyTypes: true,
			noUncheckedIndexedAccess: true,
			skipLibCheck: false,
			types: ["node"],
			preserveSymlinks: true,
		},
		files: examples.map(({ file }) => file),
	};
	writeFileSync(join(directory, "tsconfig.json"), JSON.stringify(config));
	const compiler = join(projectRoot, "node_modules/typescript/bin/tsc");
	const { stdout } = spawnSync(process.execPath, [compiler, "-p", directory], { encoding: "utf8" });
	assert.equal(stdout, "");
});

test("the README's first example builds an image and shows an error's place", () => {
	const printed = run("example0.ts");
	assert.match(printed, /^built \[1\/1\] COPY hello\.txt \/$/m);
	assert.match(printed, /^sha256:[0-9a-f]{64}$/m);
	assert.match(printed, /^not-found .*"\/nothing": not found line 2$/m);
	assert.ok(existsSync(join(directory, "image.tar")));
});

test("the README's second example builds a graph into a stream", () => {
	const printed = run("example1.ts");
	const [, bytes = "0"] = /^a tar of (\d+) bytes$/m.exec(printed) ?? [];
	assert.ok(Number(bytes) >= 2048, printed);
	assert.match(printed, /^source\.local \d+ local source for files$/m);
});

test("a build ends when its signal does, and an engine when it is disposed; an unread build harms nothing", () => {
	writeFileSync(
		join(directory, "abort.ts"),
		`import { createEngine, hasCode } from "slipway";
const engine = await createEngine({ root: "state" });
engine.build({ dockerfile: { text: "FROM nowhere.invalid/x\\n" } });
const controller = new AbortController();
const build = engine.build({
	dockerfile: { text: "FROM scratch\\nADD http://127.0.0.1:9/never /\\n" },
	signal: controller.signal,
});
controller.abort();
await build.result.then(
	() => console.log("built"),
	(error) => console.log(hasCode(error, "canceled")),
);
await engine[Symbol.asyncDispose]();
console.log("closed");
`,
	);
	assert.equal(run("abort.ts"), "true\nclosed\n");
});

test("whatever ends a build early, the error is a SlipwayError whose code says what it was", () => {
	writeFileSync(
		join(directory, "ends.ts"),
		`import { type BuildOptions, createEngine, type Files, SlipwayError } from "slipway";
const engine = await createEngine({ root: "state" });
const how = async (name: string, context: Files, options: Partial<BuildOptions> = {}): Promise<void> => {
	const build = engine.build({ dockerfile: { text: "FROM scratch\\nCOPY . /\\n", context }, ...options });
	const error: unknown = await build.result.catch((thrown: unknown) => thrown);
	console.log(name, error instanceof SlipwayError && error.code);
};
const late = { a: () => new Promise<string>((resolve) => setTimeout(() => resolve(""), 1000)) };
await how("throws", { a: async () => { throw new Error("its own"); } });
await how("clash", { a: "", "a/b": "" });
await how("before", {}, { signal: AbortSignal.abort(new Error("its own reason")) });
await how("timeout", late, { signal: AbortSignal.timeout(10) });
const left = how("left", { a: async () => new Promise((resolve) => setTimeout(() => resolve(""), 50)) });
await engine[Symbol.asyncDispose]();
await left;
await how("closed", {});
`,
	);
	assert.equal(
		run("ends.ts"),
		"throws unknown\nclash invalid-argument\nbefore canceled\ntimeout deadline-exceeded\nleft canceled\nclosed failed-precondition\n",
	);
});
