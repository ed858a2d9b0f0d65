import { join } from "node:path";
import { defaultAddress, defaultConfigFile } from "./config.ts";
import { ownUid } from "./default-root.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** Where a daemon listens unless told otherwise: a user's is in his own runtime directory. BuildKit's places. */
export function defaultAddressOf(env: Env): string {
	const [runtime] = env["XDG_RUNTIME_DIR"]?.split(":") ?? [];
	return ownUid(env) === 0 || runtime === undefined || runtime === ""
		? defaultAddress
		: `unix://${join(runtime, "buildkit/buildkitd.sock")}`;
}

export function defaultConfigFileOf(env: Env): string {
	if (ownUid(env) === 0) {
		return defaultConfigFile;
	}
	const config = env["XDG_CONFIG_HOME"] || join(env["HOME"] ?? "/", ".config");
	return join(config, "buildkit/buildkitd.toml");
}
