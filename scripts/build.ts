/**
 * `npm run build`: dist/, what the package ships: one bundle for all commands, and one entry per worker-thread job, under the
 * same path below dist/ as below src/ (the thread pool finds them by it).
 */
import { globSync, rmSync } from "node:fs";
import { resolve } from "node:path";
import { type BuildOptions, build } from "esbuild";
import { writeTypes } from "./types.ts";

const root = resolve(import.meta.dirname, "..");
rmSync(resolve(root, "dist"), { recursive: true, force: true });
/** Stay packages of their own: native, or so large that only who needs them shall load them. */
const lateModules = [
	"koffi",
	"undici",
	"@aws-sdk/client-s3",
	"@azure/storage-blob",
	"@azure/identity",
	"re2js",
];
const common: BuildOptions = {
	absWorkingDir: root,
	outbase: "src",
	outdir: "dist",
	bundle: true,
	format: "esm",
	platform: "node",
	target: "node24",
	minifySyntax: true,
	minifyWhitespace: true,
	minifyIdentifiers: true,
	external: lateModules,
	logLevel: "warning",
};
const jobs = globSync("src/**/*.job.ts", { cwd: root });
const script: BuildOptions = {
	...common,
	format: "cjs",
	outExtension: { ".js": ".cjs" },
	define: { "import.meta.url": "__importMetaUrl" },
	external: [...lateModules, "./commands.ts"],
};
await Promise.all([
	// A script starts sooner than a module.
	build({
		...script,
		entryPoints: ["src/cli/main.ts"],
		banner: { js: 'const __importMetaUrl = require("node:url").pathToFileURL(__filename).href;' },
	}),
	// One file, since each further one costs a millisecond at every start. `main` runs it and hands `__importMetaUrl` in.
	build({ ...script, entryPoints: ["src/cli/commands.ts"] }),
	build({
		...common,
		entryPoints: ["src/async/pool-thread.ts", "src/library/index.ts", "src/library/llb.ts", ...jobs],
		chunkNames: "chunks/[name]-[hash]",
		splitting: true,
	}),
]);
if (process.argv.includes("--types")) {
	writeTypes();
}
