import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { constants, Script } from "node:vm";
import { ownUid } from "../daemon/default-root.ts";
import { buildFlags } from "./build-flags.ts";
import { debugFlags } from "./debug-shell.ts";
import type { FlagSpec } from "./flags.ts";
import { forwardCommand } from "./forward.ts";

/** Modules of Node that take a millisecond or more to load, and that a build may end without. */
const lateModules = [
	"node:child_process",
	"node:fs/promises",
	"node:net",
	"node:worker_threads",
	"node:zlib",
];

/** Commands that need a builder, which the background builder runs for us unless they are told otherwise. */
const forwardedCommands: ReadonlyMap<string, readonly FlagSpec[]> = new Map([
	["build", buildFlags],
	["b", buildFlags],
	["debug build", [...buildFlags, ...debugFlags]],
]);

/**
 * The entry of the program: hands a build to the background builder, else loads `commands`, from sources as a module, from the bundle as a script whose compiled code is kept.
 * Half of a short run's time would go into compiling functions; Node's own cache of compiled code has only those that ran
 * while a module was loaded.
 */
const self = fileURLToPath(import.meta.url);
const argv = process.argv.slice(2);
const flags = forwardedCommands.get(argv[0] === "debug" ? `debug ${argv[1]}` : (argv[0] ?? ""));
// A builder started from sources would not notice that they have changed.
if (
	flags === undefined ||
	self.endsWith(".ts") ||
	(process.env["SLIPWAY_CALLED_AS"] ?? "slipway") !== "slipway"
) {
	runHere();
} else {
	forwardCommand({ argv, flags, program: self }).then((code) => {
		if (code === undefined) {
			runHere();
		} else {
			process.exitCode = code;
		}
	}, fail);
}

function runHere(): void {
	if (self.endsWith(".ts")) {
		import("./commands.ts").catch(fail);
	} else {
		runBundle(join(dirname(self), "commands.cjs"));
	}
}

function fail(thrown: unknown): void {
	process.stderr.write(`ERROR: ${thrown instanceof Error ? thrown.message : thrown}\n`);
	process.exitCode = 1;
}

/** As V8 can use it only with the same file, Node and processor, all of them are in its name. */
function cacheFile(bundle: string): string | undefined {
	const directory = cacheDirectory();
	const { size, mtimeMs } = statSync(bundle);
	return directory === undefined
		? undefined
		: join(directory, `commands-${process.version}-${process.arch}-${size}-${mtimeMs}.code`);
}

/** A directory of the user's own: who can write there can run code as him. */
function cacheDirectory(): string | undefined {
	const { XDG_CACHE_HOME: cache, HOME: home } = process.env;
	if (ownUid(process.env) === 0) {
		return "/var/cache/slipway";
	}
	if (cache !== undefined && cache !== "") {
		return join(cache, "slipway");
	}
	return home === undefined || home === "" ? undefined : join(home, ".cache", "slipway");
}

function runBundle(bundle: string): void {
	const cache = cacheFile(bundle);
	const cachedData = cache === undefined ? undefined : readOptional(cache);
	const source = `(function(require,__importMetaUrl){${readFileSync(bundle, "utf8")}\n})`;
	const script = new Script(source, {
		filename: bundle,
		importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
		...(cachedData === undefined ? {} : { cachedData }),
	});
	if (cache !== undefined && (cachedData === undefined || script.cachedDataRejected === true)) {
		// At the end, when the functions that a build needs have been compiled.
		process.once("exit", (code) => {
			if (code === 0 && forwardedCommands.has(process.argv[2] ?? "")) {
				keep(cache, script);
			}
		});
	}
	const run = script.runInThisContext() as (require: NodeJS.Require, url: string) => void;
	// Threads and native libraries are found from here; what they load are modules.
	run(lateRequire(createRequire(bundle)), import.meta.url.replace(/\.cjs$/, ".js"));
}

/** `require` that loads those when something of them is used first. */
function lateRequire(require: NodeJS.Require): NodeJS.Require {
	const late = (name: string): unknown =>
		lateModules.includes(name)
			? new Proxy({}, { get: (_, key) => Reflect.get(require(name) as object, key) })
			: require(name);
	return Object.assign(late, require) as NodeJS.Require;
}

function keep(cache: string, script: Script): void {
	try {
		const directory = dirname(cache);
		mkdirSync(directory, { recursive: true, mode: 0o700 });
		for (const old of readdirSync(directory)) {
			rmSync(join(directory, old), { recursive: true, force: true });
		}
		const temporary = `${cache}.${process.pid}`;
		writeFileSync(temporary, script.createCachedData(), { mode: 0o600 });
		renameSync(temporary, cache);
	} catch {
		// Every start then compiles anew.
	}
}

function readOptional(file: string): Buffer | undefined {
	try {
		return readFileSync(file);
	} catch {
		return undefined;
	}
}
