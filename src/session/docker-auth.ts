import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { SlipwayError, toError, wrap } from "../errors/errors.ts";
import { spawn } from "../sys/spawn.ts";
import type { RegistryCredentials, SessionAuth } from "./session.ts";

type Environment = Readonly<Record<string, string | undefined>>;

export interface DockerAuthOptions {
	/** `DOCKER_CONFIG`, `DOCKER_AUTH_CONFIG`, `HOME`, and `PATH` for the credential helpers, which inherit all of it. */
	readonly env: Environment;
}

/** Docker Hub's registry, and the name that its login has in the configuration. */
const hubHost = "registry-1.docker.io";
const hubKey = "https://index.docker.io/v1/";

/** Short-lived tokens that some helpers give end after 5 minutes. */
const keepMs = (4 * 60 + 50) * 1000;
const maxAnswerBytes = 1 << 20;

/**
 * Logins as `docker login` keeps them: in the configuration file, or with a credential helper that it names. A helper is asked
 * once in five minutes per registry, and one at a time: some of them hang otherwise.
 */
export function createDockerAuth({ env }: DockerAuthOptions): SessionAuth {
	let config: DockerConfig | undefined;
	let busy: Promise<unknown> = Promise.resolve();
	const known = new Map<
		string,
		{ readonly until: number; readonly credentials: RegistryCredentials | undefined }
	>();
	const find = async (key: string, signal: AbortSignal): Promise<RegistryCredentials | undefined> => {
		const kept = known.get(key);
		if (kept !== undefined && kept.until > performance.now()) {
			return kept.credentials;
		}
		config ??= readConfig(env);
		const credentials = await credentialsOf(config, key, { env, signal });
		known.set(key, { until: performance.now() + keepMs, credentials });
		return credentials;
	};
	return {
		credentials(host, { signal }) {
			const key = host === hubHost ? hubKey : host;
			const answer = busy.then(() => find(key, signal));
			busy = answer.catch(() => undefined);
			return answer;
		},
	};
}

interface DockerConfig {
	readonly path: string;
	readonly auths: ReadonlyMap<string, AuthEntry>;
	/** From the environment; goes before everything else. */
	readonly override: ReadonlyMap<string, AuthEntry>;
	readonly helpers: ReadonlyMap<string, string>;
	readonly store: string;
}

interface AuthEntry {
	readonly auth: string;
	readonly identityToken: string;
	readonly username: string;
	readonly password: string;
}

function readConfig(env: Environment): DockerConfig {
	const directory = env["DOCKER_CONFIG"] || join(env["HOME"] || homedir(), ".docker");
	const path = join(directory, "config.json");
	let document: Readonly<Record<string, unknown>> = {};
	try {
		document = parseObject(readFileSync(path, "utf8"));
	} catch (thrown) {
		const error = toError(thrown);
		if (error.code !== "not-found") {
			throw wrap(error, `could not read Docker's configuration ${path}`);
		}
	}
	const store = document["credsStore"];
	return {
		path,
		auths: readAuths(document["auths"]),
		override: readOverride(env["DOCKER_AUTH_CONFIG"]),
		helpers: new Map(
			Object.entries(objectOf(document["credHelpers"])).filter(
				(entry): entry is [string, string] => typeof entry[1] === "string",
			),
		),
		store: typeof store === "string" ? store : "",
	};
}

function readOverride(text: string | undefined): ReadonlyMap<string, AuthEntry> {
	if (text === undefined || text === "") {
		return new Map();
	}
	try {
		const auths = readAuths(parseObject(text)["auths"]);
		for (const [host, { auth }] of auths) {
			if (auth === "") {
				throw new SlipwayError("invalid-argument", `missing key \`auth\` for ${host}`);
			}
		}
		return auths;
	} catch (thrown) {
		throw wrap(thrown, "could not read environment variable DOCKER_AUTH_CONFIG");
	}
}

function readAuths(value: unknown): ReadonlyMap<string, AuthEntry> {
	const text = (entry: unknown): string => (typeof entry === "string" ? entry : "");
	return new Map(
		Object.entries(objectOf(value)).map(([host, each]) => {
			const entry = objectOf(each);
			return [
				host,
				{
					auth: text(entry["auth"]),
					identityToken: text(entry["identitytoken"]),
					username: text(entry["username"]),
					password: text(entry["password"]),
				},
			];
		}),
	);
}

async function credentialsOf(
	config: DockerConfig,
	key: string,
	options: DockerAuthOptions & { readonly signal: AbortSignal },
): Promise<RegistryCredentials | undefined> {
	const override = config.override.get(key);
	if (override !== undefined) {
		return fromEntry(override, key, "DOCKER_AUTH_CONFIG");
	}
	const helper = config.helpers.get(key) ?? config.store;
	if (helper !== "") {
		return askHelper(helper, key, options);
	}
	// Old files have keys like `https://host/v1/`.
	const entry = config.auths.get(key) ?? [...config.auths].find(([name]) => hostOf(name) === key)?.[1];
	return entry === undefined ? undefined : fromEntry(entry, key, config.path);
}

function fromEntry(entry: AuthEntry, key: string, place: string): RegistryCredentials | undefined {
	if (entry.identityToken !== "") {
		return { kind: "identity-token", token: entry.identityToken };
	}
	if (entry.auth === "") {
		return basic(entry.username, entry.password);
	}
	const decoded = Buffer.from(entry.auth, "base64").toString("utf8");
	const colon = decoded.indexOf(":");
	if (colon < 1) {
		throw new SlipwayError("invalid-argument", `invalid login for ${key} in ${place}: no user and password`);
	}
	return basic(decoded.slice(0, colon), decoded.slice(colon + 1).replace(/^\0+|\0+$/g, ""));
}

function basic(username: string, password: string): RegistryCredentials | undefined {
	return username === "" && password === "" ? undefined : { kind: "basic", username, password };
}

function hostOf(name: string): string {
	return name.replace(/^[a-z]+:\/\/(?:[^/@]*@)?/, "").replace(/\/.*$/s, "");
}

/** Docker's protocol of credential helpers: `docker-credential-<name> get`, the key on stdin, JSON on stdout. */
async function askHelper(
	helper: string,
	key: string,
	{ env, signal }: DockerAuthOptions & { readonly signal: AbortSignal },
): Promise<RegistryCredentials | undefined> {
	const program = `docker-credential-${helper}`;
	if (helper.includes("/")) {
		throw new SlipwayError(
			"invalid-argument",
			`invalid name of a credential helper ${JSON.stringify(helper)}`,
		);
	}
	try {
		const { code, output } = await runHelper([program, "get"], key, { env, signal });
		if (code !== 0) {
			if (output.trim() === "credentials not found in native keychain") {
				return undefined;
			}
			throw new SlipwayError("unauthenticated", `${program} ended with code ${code}: ${output.trim()}`);
		}
		const answer = parseObject(output);
		const username = answer["Username"];
		const secret = answer["Secret"];
		if (typeof username !== "string" || typeof secret !== "string") {
			throw new SlipwayError("unauthenticated", `${program} gave no user and secret`);
		}
		return username === "<token>" ? { kind: "identity-token", token: secret } : basic(username, secret);
	} catch (thrown) {
		throw wrap(thrown, `error getting credentials for ${key}`);
	}
}

async function runHelper(
	argv: [string, ...string[]],
	input: string,
	{ env, signal }: DockerAuthOptions & { readonly signal: AbortSignal },
): Promise<{ readonly code: number; readonly output: string }> {
	if (signal.aborted) {
		throw toError(signal.reason);
	}
	const child = spawn({
		argv,
		env: Object.fromEntries(
			Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined),
		),
		stdin: "pipe",
		stdout: "pipe",
		stderr: "null",
	});
	const kill = (): void => {
		child.kill("SIGKILL");
	};
	signal.addEventListener("abort", kill);
	try {
		// A helper that ends without reading its input is judged by what it says.
		child.stdin?.on("error", () => undefined);
		child.stdin?.end(input);
		const chunks: Uint8Array[] = [];
		let size = 0;
		for await (const chunk of child.stdout ?? []) {
			chunks.push(chunk);
			size += chunk.length;
			if (size > maxAnswerBytes) {
				throw new SlipwayError("resource-exhausted", `${argv[0]} wrote more than ${maxAnswerBytes} bytes`);
			}
		}
		const { code } = await child.exited;
		if (signal.aborted) {
			throw toError(signal.reason);
		}
		return { code, output: Buffer.concat(chunks).toString("utf8") };
	} finally {
		signal.removeEventListener("abort", kill);
		kill();
	}
}

function parseObject(text: string): Readonly<Record<string, unknown>> {
	let value: unknown;
	try {
		value = JSON.parse(text);
	} catch {
		// The text may hold a password; the parser's message would quote it.
		throw new SlipwayError("invalid-argument", "not valid JSON");
	}
	if (typeof value !== "object" || value === null || Array.isArray(value)) {
		throw new SlipwayError("invalid-argument", "no JSON object");
	}
	return value as Readonly<Record<string, unknown>>;
}

function objectOf(value: unknown): Readonly<Record<string, unknown>> {
	return typeof value === "object" && value !== null && !Array.isArray(value)
		? (value as Readonly<Record<string, unknown>>)
		: {};
}
