import { lstatSync, mkdirSync, readlinkSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { defaultConfigFile } from "../daemon/config.ts";
import { defaultRoot, ownUid } from "../daemon/default-root.ts";
import { version } from "../daemon/version.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** Where the daemon of a state directory is reached, and what it writes to. */
export interface BuilderPlace {
	/** Commands of `slipway` itself. */
	readonly commandSocket: string;
	/** BuildKit's gRPC API. */
	readonly apiSocket: string;
	readonly log: string;
}

/**
 * In the user's runtime directory, which nobody else can write to: `/run/slipway`, `$XDG_RUNTIME_DIR/slipway`, else
 * `/tmp/slipway-<uid>`. Undefined if that is not the user's own. `root` is the absolute state directory.
 */
export function builderPlace(root: string, env: Env): BuilderPlace | undefined {
	const uid = ownUid(env);
	const runtime = env["XDG_RUNTIME_DIR"];
	const directory = uid === 0 ? "/run/slipway" : runtime ? join(runtime, "slipway") : `/tmp/slipway-${uid}`;
	try {
		mkdirSync(directory, { recursive: true, mode: 0o700 });
		const found = lstatSync(directory);
		if (!found.isDirectory() || found.uid !== process.getuid?.() || (found.mode & 0o022) !== 0) {
			return undefined;
		}
	} catch {
		return undefined;
	}
	const name = root === resolve(defaultRoot(env)) ? "slipwayd" : `slipwayd-${shortHash(root)}`;
	return {
		commandSocket: join(directory, `${name}.command`),
		apiSocket: join(directory, `${name}.sock`),
		log: join(directory, `${name}.log`),
	};
}

/**
 * What must be the same in a client and the daemon that works for it, as the builder has it from its own process: the program,
 * the tools and proxies of the environment, the mask of new files, and the machine's configuration, which is read at the start.
 */
export function builderIdentity(options: {
	readonly program: string;
	readonly env: Env;
	readonly engine: readonly string[];
	/** Default: the machine's `buildkitd.toml`. */
	readonly configFile?: string;
}): readonly string[] {
	const { program, env } = options;
	const file = statSync(program);
	const config = statSync(options.configFile ?? defaultConfigFile, { throwIfNoEntry: false });
	const variables = [
		"PATH",
		"http_proxy",
		"https_proxy",
		"no_proxy",
		"HTTP_PROXY",
		"HTTPS_PROXY",
		"NO_PROXY",
		"BUILDKIT_STEP_LOG_MAX_SIZE",
		"BUILDKIT_STEP_LOG_MAX_SPEED",
	];
	return [
		`${version} ${program} ${file.size} ${file.mtimeMs}`,
		...variables.map((name) => `${name}=${env[name] ?? ""}`),
		`umask=${process.umask()}`,
		config === undefined ? "no config" : `config ${config.size} ${config.mtimeMs}`,
		...options.engine,
	];
}

/**
 * The mount namespace and root directory of this process, or of the user outside of the namespace that was made for him: a
 * path means the same file where both are equal.
 */
export function fileSystemView(env: Env): string {
	const outer = env["SLIPWAY_OUTER_VIEW"];
	if (outer !== undefined && outer !== "") {
		return outer;
	}
	return `${readlinkSync("/proc/self/ns/mnt")} ${statSync("/").dev}:${statSync("/").ino}`;
}

/** FNV-1a of 64 bits; not against an attacker, who could not write to the directory anyway. */
function shortHash(text: string): string {
	let hash = 0xcbf29ce484222325n;
	for (const byte of Buffer.from(text)) {
		hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
	}
	return hash.toString(16).padStart(16, "0");
}
