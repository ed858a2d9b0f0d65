/** `npm test` runs src/**\/*.test.ts, `npm run test:e2e` runs e2e/*.test.ts; more arguments name files instead. */
import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";
import { resolve } from "node:path";

const root = resolve(import.meta.dirname, "..");
const [kind = "unit", ...only] = process.argv.slice(2);
const pattern = kind === "e2e" ? "e2e/**/*.test.ts" : "{src,scripts}/**/*.test.ts";
const files = only.length > 0 ? only : globSync(pattern, { cwd: root }).sort();
if (files.length === 0) {
	console.error(`no test matches ${pattern}`);
	process.exit(1);
}
const run = spawnSync(
	process.execPath,
	["--test", "--test-reporter=spec", "--test-timeout=300000", ...files],
	{
		cwd: root,
		stdio: "inherit",
		// What a user's environment says about builds must not decide a test.
		env: {
			...process.env,
			SLIPWAY_ROOT: "",
			BUILDKIT_PROGRESS: "",
			SOURCE_DATE_EPOCH: "",
			NODE_EXTRA_CA_CERTS: "",
		},
	},
);
process.exit(run.status ?? 1);
