import { statSync } from "node:fs";
import { resolve } from "node:path";
import { SlipwayError, toError, wrap } from "../errors/errors.ts";
import { csvFields } from "../oci/csv-fields.ts";
import { readStart } from "./read-start.ts";
import type { SessionSecrets } from "./session.ts";

/** BuildKit's limit for one secret. */
export const maxSecretBytes: number = 500 << 10;

export interface SecretSpec {
	readonly id: string;
	readonly file: string | undefined;
	readonly env: string | undefined;
}

/** `id=x,src=file`, `id=x,env=NAME`, `type=env,id=x,src=NAME`; keys in any case. Throws `invalid-argument`. */
export function parseSecret(text: string): SecretSpec {
	let type: string | undefined;
	let id = "";
	let file: string | undefined;
	let env: string | undefined;
	for (const field of readFields(text)) {
		const equals = field.indexOf("=");
		if (equals === -1) {
			throw invalid(`invalid field '${field}' must be a key=value pair`);
		}
		const value = field.slice(equals + 1);
		const key = field.slice(0, equals).toLowerCase();
		switch (key) {
			case "type":
				if (value !== "file" && value !== "env") {
					throw invalid(`unsupported secret type ${JSON.stringify(value)}`);
				}
				type = value;
				break;
			case "id":
				id = value;
				break;
			case "source":
			case "src":
				file = value === "" ? undefined : value;
				break;
			case "env":
				env = value === "" ? undefined : value;
				break;
			default:
				throw invalid(`unexpected key '${key}' in '${field}'`);
		}
	}
	if (id === "") {
		throw invalid(`secret missing ID in ${JSON.stringify(text)}`);
	}
	return type === "env" && env === undefined ? { id, env: file, file: undefined } : { id, file, env };
}

/**
 * Secrets from `--secret` values. Without a source, the environment variable of the id, or else the file of that name. Files
 * must be there, and are read when they are asked for. `src=-` is standard input.
 */
export function createSecrets(
	specs: readonly string[],
	options: {
		readonly env: Readonly<Record<string, string | undefined>>;
		/** What relative paths start from; default: the process's own directory. */
		readonly cwd?: string;
		/** What `src=-` means; read once, when it is asked for first. */
		readonly readStdin?: () => Promise<Uint8Array>;
	},
): SessionSecrets {
	const { cwd = "" } = options;
	let stdin: Promise<Uint8Array> | undefined;
	const secrets = new Map<string, SecretSpec>();
	for (const text of specs) {
		const spec = withDefaultSource(parseSecret(text), options.env);
		// A variable goes before a file.
		if (isStdin(spec)) {
			if (options.readStdin === undefined) {
				throw invalid(`secret ${spec.id} cannot be read from standard input here`);
			}
		} else if (spec.env === undefined && spec.file !== undefined) {
			checkFile(spec.id, spec.file, cwd);
		}
		secrets.set(spec.id, spec);
	}
	return {
		async secret(id) {
			const spec = secrets.get(id);
			if (spec === undefined) {
				return undefined;
			}
			if (isStdin(spec)) {
				stdin ??= options.readStdin?.();
			}
			const bytes = isStdin(spec)
				? ((await stdin) ?? new Uint8Array())
				: spec.env === undefined
					? readFile(spec.id, resolve(cwd, spec.file ?? spec.id))
					: new TextEncoder().encode(options.env[spec.env] ?? "");
			if (bytes.length > maxSecretBytes) {
				throw tooBig(id);
			}
			return bytes;
		},
	};
}

function isStdin(spec: SecretSpec): boolean {
	return spec.env === undefined && spec.file === "-";
}

function withDefaultSource(spec: SecretSpec, env: Readonly<Record<string, string | undefined>>): SecretSpec {
	if (spec.env !== undefined || spec.file !== undefined) {
		return spec;
	}
	return env[spec.id] === undefined ? { ...spec, file: spec.id } : { ...spec, env: spec.id };
}

function checkFile(id: string, file: string, cwd: string): void {
	try {
		if (statSync(resolve(cwd, file)).size > maxSecretBytes) {
			throw tooBig(id);
		}
	} catch (thrown) {
		throw thrown instanceof SlipwayError ? thrown : wrap(toError(thrown), `failed to stat ${file}`);
	}
}

/** To its end, but no further than the limit. */
function readFile(id: string, file: string): Uint8Array {
	try {
		return new Uint8Array(readStart(file, maxSecretBytes + 1));
	} catch (thrown) {
		throw wrap(thrown, `failed to read secret ${id}`);
	}
}

function readFields(text: string): readonly string[] {
	try {
		return csvFields(text);
	} catch (thrown) {
		throw wrap(thrown, "failed to parse csv secret");
	}
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}

function tooBig(id: string): SlipwayError {
	return new SlipwayError("invalid-argument", `secret ${id} too big. max size 500KiB`);
}
