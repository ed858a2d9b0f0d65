/**
 * `npm run build`: dist/, what the package ships: one bundle for all commands, and one entry per worker-thread job, under the
 * same path below dist/ as below src/ (the thread pool finds them by it).
 */
import { globSync, rmSync } from "node:fs";
import { resolve } from "node:path";
import { type BuildOptions, build } from "esbuild";

const root = resolve(import.meta.dirname, "..");
rmSync(resolve(root, "dist"), { recursive: true, force: true });
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
	external: ["koffi", "undici"],
	logLevel: "warning",
};
const jobs = globSync("src/**/*.job.ts", { cwd: root });
await Promise.all([
	// One file each: every further one costs a millisecond at every start.
	build({ ...common, entryPoints: ["src/cli/main.ts", "src/cli/commands.ts"] }),
	build({
		...common,
		entryPoints: ["src/async/pool-thread.ts", ...jobs],
		chunkNames: "chunks/[name]-[hash]",
		splitting: true,
	}),
]);
