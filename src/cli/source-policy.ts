import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { SolveRequest } from "../client/client.ts";
import { wrap } from "../errors/errors.ts";
import type { Terminal } from "./terminal.ts";

const variable = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY";

/** The source policy in the file that the environment names, as buildx reads it; undefined if it names none. */
export async function readSourcePolicy({
	env,
	cwd,
}: Pick<Terminal, "env" | "cwd">): Promise<SolveRequest["sourcePolicy"]> {
	const file = env[variable];
	if (file === undefined || file === "") {
		return undefined;
	}
	return await readPolicyFile(resolve(cwd, file), {
		unread: "failed to read policy file",
		invalid: `failed to parse source policy ${file}`,
	});
}

/** `prefixes` begin the errors of a file that cannot be read, or is no policy. */
export async function readPolicyFile(
	path: string,
	prefixes: { readonly unread: string; readonly invalid: string },
): Promise<NonNullable<SolveRequest["sourcePolicy"]>> {
	let json: string;
	try {
		json = readFileSync(path, "utf8");
	} catch (thrown) {
		throw wrap(thrown, prefixes.unread);
	}
	const { parseSourcePolicy } = await import("../client/source-policy-json.ts");
	try {
		return parseSourcePolicy(json);
	} catch (thrown) {
		throw wrap(thrown, prefixes.invalid);
	}
}
