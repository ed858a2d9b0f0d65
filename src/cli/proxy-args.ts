import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { hasCode, toError } from "../errors/errors.ts";
import type { Terminal } from "./terminal.ts";

const settings: Readonly<Record<string, string>> = {
	httpProxy: "HTTP_PROXY",
	httpsProxy: "HTTPS_PROXY",
	noProxy: "NO_PROXY",
	ftpProxy: "FTP_PROXY",
	allProxy: "ALL_PROXY",
};

/**
 * Build arguments for the `proxies` of Docker's configuration: those of the host that `DOCKER_HOST` names, else `default`. Each
 * in both spellings, since programs disagree, unless the user gave one of them in any spelling.
 */
export function proxyArguments(
	given: ReadonlyMap<string, string>,
	{ env, stderr }: Pick<Terminal, "env" | "stderr">,
): ReadonlyMap<string, string> {
	const proxies = objectOf(readConfig({ env, stderr })["proxies"]);
	const { DOCKER_HOST: host = "" } = env;
	const chosen = objectOf(proxies[host] ?? proxies["default"]);
	const taken = new Set([...given.keys()].map((name) => name.toUpperCase()));
	return new Map(
		Object.entries(settings).flatMap(([key, name]) => {
			const value = chosen[key];
			return typeof value !== "string" || value === "" || taken.has(name)
				? []
				: [[name, value] as const, [name.toLowerCase(), value] as const];
		}),
	);
}

/** Empty where there is none; a broken one is the user's to know, and no reason to stop, as in Docker. */
function readConfig({ env, stderr }: Pick<Terminal, "env" | "stderr">): Readonly<Record<string, unknown>> {
	const path = join(env["DOCKER_CONFIG"] || join(env["HOME"] || homedir(), ".docker"), "config.json");
	try {
		return objectOf(JSON.parse(readFileSync(path, "utf8")));
	} catch (thrown) {
		const error = toError(thrown);
		if (!hasCode(error, "not-found")) {
			stderr.write(`WARNING: Error loading config file: ${path}: ${error.message}\n`);
		}
		return {};
	}
}

function objectOf(value: unknown): Readonly<Record<string, unknown>> {
	return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}
