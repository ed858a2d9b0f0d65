/** `npm run check`: types, lint and format, rooms, suites, generated code. Exit code 0 means: this is good. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { checkRooms } from "./rooms.ts";

const root = resolve(import.meta.dirname, "..");
let failed = false;

function report(what: string, problems: readonly string[]): void {
	failed ||= problems.length > 0;
	console.log(problems.length === 0 ? `ok    ${what}` : `FAIL  ${what}`);
	for (const problem of problems) {
		console.log(`      ${problem}`);
	}
}

function tool(what: string, command: string, args: readonly string[]): void {
	const run = spawnSync(command, args, { cwd: root, encoding: "utf8" });
	const output = `${run.stdout ?? ""}${run.stderr ?? ""}`.trim();
	report(what, run.status === 0 ? [] : output.split("\n").slice(0, 200));
}

/** Every `*.suite.ts` proves something only if at least two implementations are held to it. */
function checkSuites(): readonly string[] {
	const files = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" });
	const tests = files.filter((file) => file.endsWith(".test.ts"));
	const texts = tests.map((file) => readFileSync(join(root, "src", file), "utf8"));
	return files
		.filter((file) => file.endsWith(".suite.ts"))
		.filter((suite) => {
			const name = suite.slice(suite.lastIndexOf("/") + 1).replaceAll(".", "\\.");
			const calls = texts.flatMap((text) => {
				const imported = new RegExp(`import \\{ ([\\w$]+)[^}]*\\} from "[^"]*/${name}"`).exec(text)?.[1];
				return imported === undefined ? [] : (text.match(new RegExp(`\\b${imported}\\(`, "g")) ?? []);
			});
			return calls.length < 2;
		})
		.map((suite) => `src/${suite} is called for fewer than two implementations`);
}

tool("types", join(root, "node_modules/.bin/tsc"), ["-p", "tsconfig.json"]);
tool("lint and format", join(root, "node_modules/.bin/biome"), ["check", "--error-on-warnings"]);
report("rooms", checkRooms(join(root, "src")));
report("suites", checkSuites());
tool("generated code", process.execPath, [join(root, "scripts/generate.ts"), "--check"]);
process.exit(failed ? 1 : 0);
