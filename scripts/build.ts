/**
 * `npm run build`: dist/, what the package ships. One bundle for the CLI with chunks that load when they are needed,
 * and one entry per worker-thread job, under the same path below dist/ as below src/ (the thread pool finds them by it).
 */
import { globSync, rmSync } from "node:fs";
import { resolve } from "node:path";
import { build } from "esbuild";

const root = resolve(import.meta.dirname, "..");
rmSync(resolve(root, "dist"), { recursive: true, force: true });
await build({
	absWorkingDir: root,
	entryPoints: ["src/cli/main.ts", "src/async/pool-thread.ts", ...globSync("src/**/*.job.ts", { cwd: root })],
	outbase: "src",
	outdir: "dist",
	chunkNames: "chunks/[name]-[hash]",
	bundle: true,
	splitting: true,
	format: "esm",
	platform: "node",
	target: "node24",
	minifySyntax: true,
	external: ["koffi", "undici"],
	logLevel: "warning",
});
