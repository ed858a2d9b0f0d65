import { createHash } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { hasCode, SlipwayError, toError, wrap } from "../errors/errors.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/** Where a container engine can be spoken to. */
export type EnginePlace =
	/** Docker's API at a unix socket. */
	| { readonly kind: "socket"; readonly path: string; readonly shown: string }
	| {
			readonly kind: "tcp";
			readonly host: string;
			readonly port: number;
			/** PEM files; undefined is plain http. */
			readonly tls: EngineTls | undefined;
			readonly shown: string;
	  }
	/** `docker system dial-stdio` on another machine. */
	| { readonly kind: "ssh"; readonly target: readonly string[]; readonly shown: string }
	/** A program that loads archives. */
	| { readonly kind: "program"; readonly path: string; readonly shown: string };

export interface EngineTls {
	readonly ca: string | undefined;
	readonly certificate: string | undefined;
	readonly key: string | undefined;
	readonly skipVerify: boolean;
}

const dockerSocket = "/var/run/docker.sock";

export interface EnginePlaceOptions {
	readonly env: Environment;
	/** Name of a Docker context; undefined: whatever is current. */
	readonly context: string | undefined;
	/** For tests: sockets that are looked at when nothing is configured. Default: Docker's, then podman's. */
	readonly sockets?: readonly string[];
}

/**
 * The engine that `docker` would talk to: `DOCKER_HOST`, then `DOCKER_CONTEXT`, then the configuration's current context, then Docker's own
 * socket; else podman, by `CONTAINER_HOST`, its socket, or its program. Throws `not-found` where there is none of them.
 */
export function findEngine({ env, context, sockets }: EnginePlaceOptions): EnginePlace {
	if (context !== undefined && context !== "") {
		return placeOfContext(context, env);
	}
	if (env["DOCKER_HOST"]) {
		return placeOfUrl(env["DOCKER_HOST"], tlsOfEnvironment(env));
	}
	const current = env["DOCKER_CONTEXT"] || currentContext(env);
	if (current !== undefined && current !== "default") {
		return placeOfContext(current, env);
	}
	if (env["CONTAINER_HOST"] && !isSocket(dockerSocket)) {
		return placeOfUrl(env["CONTAINER_HOST"], undefined);
	}
	const runtimeDir = env["XDG_RUNTIME_DIR"];
	const candidates = sockets ?? [
		dockerSocket,
		...(runtimeDir === undefined ? [] : [join(runtimeDir, "podman/podman.sock")]),
		"/run/podman/podman.sock",
	];
	const socket = candidates.find(isSocket);
	if (socket !== undefined) {
		return { kind: "socket", path: socket, shown: `unix://${socket}` };
	}
	const program = findProgram("podman", env);
	if (program !== undefined) {
		return { kind: "program", path: program, shown: program };
	}
	throw new SlipwayError(
		"not-found",
		`no container engine to load the image into: there is no Docker at ${dockerSocket} and no podman; ` +
			"set DOCKER_HOST, or write a file with --output type=docker,dest=FILE",
	);
}

function isSocket(path: string): boolean {
	return statSync(path, { throwIfNoEntry: false })?.isSocket() === true;
}

function findProgram(name: string, env: Environment): string | undefined {
	return (env["PATH"] ?? "")
		.split(delimiter)
		.map((dir) => join(dir, name))
		.find((path) => statSync(path, { throwIfNoEntry: false })?.isFile() === true);
}

function placeOfUrl(text: string, tls: EngineTls | undefined): EnginePlace {
	const [, scheme, rest] = /^([a-z]+):\/\/(.*)$/s.exec(text) ?? [];
	const shown = text.replace(/\/\/[^/@]*@/, "//");
	if (scheme === "unix" && rest !== undefined) {
		return { kind: "socket", path: rest, shown };
	}
	const url = URL.parse(text);
	if (url !== null && url.hostname !== "" && (scheme === "tcp" || scheme === "http" || scheme === "https")) {
		const isSecure = tls !== undefined || scheme === "https";
		return {
			kind: "tcp",
			host: url.hostname.replace(/^\[|\]$/g, ""),
			port: url.port === "" ? (isSecure ? 2376 : 2375) : Number(url.port),
			tls: isSecure
				? (tls ?? { ca: undefined, certificate: undefined, key: undefined, skipVerify: false })
				: undefined,
			shown,
		};
	}
	if (scheme === "ssh" && url !== null && /^[^-]/.test(url.hostname)) {
		const user = url.username === "" ? [] : ["-l", decodeURIComponent(url.username)];
		const port = url.port === "" ? [] : ["-p", url.port];
		return { kind: "ssh", target: [...user, ...port, "--", url.hostname], shown };
	}
	throw new SlipwayError(
		"invalid-argument",
		`cannot talk to a container engine at ${JSON.stringify(shown)}: use unix://, tcp:// or ssh://`,
	);
}

/** Of the docker command: `DOCKER_TLS_VERIFY` with the files in `DOCKER_CERT_PATH`. */
function tlsOfEnvironment(env: Environment): EngineTls | undefined {
	if (!env["DOCKER_TLS_VERIFY"] && !env["DOCKER_TLS"]) {
		return undefined;
	}
	return readTls(env["DOCKER_CERT_PATH"] || configDirectory(env), !env["DOCKER_TLS_VERIFY"]);
}

function readTls(directory: string, skipVerify: boolean): EngineTls {
	return {
		ca: readIfAny(join(directory, "ca.pem")),
		certificate: readIfAny(join(directory, "cert.pem")),
		key: readIfAny(join(directory, "key.pem")),
		skipVerify,
	};
}

function configDirectory(env: Environment): string {
	return env["DOCKER_CONFIG"] || join(env["HOME"] || homedir(), ".docker");
}

function currentContext(env: Environment): string | undefined {
	const path = join(configDirectory(env), "config.json");
	const text = readIfAny(path);
	const name = text === undefined ? undefined : parseObject(text, path)["currentContext"];
	return typeof name === "string" && name !== "" ? name : undefined;
}

/** `contexts/meta/<SHA-256 of the name>/meta.json`, as the docker command keeps them. */
function placeOfContext(name: string, env: Environment): EnginePlace {
	if (name === "default") {
		return env["DOCKER_HOST"]
			? placeOfUrl(env["DOCKER_HOST"], tlsOfEnvironment(env))
			: { kind: "socket", path: dockerSocket, shown: `unix://${dockerSocket}` };
	}
	const id = createHash("sha256").update(name).digest("hex");
	const contexts = join(configDirectory(env), "contexts");
	const path = join(contexts, "meta", id, "meta.json");
	const text = readIfAny(path);
	if (text === undefined) {
		throw new SlipwayError(
			"not-found",
			`context ${JSON.stringify(name)} does not exist: there is no ${path}`,
		);
	}
	const endpoint = objectOf(objectOf(parseObject(text, path)["Endpoints"])["docker"]);
	const host = endpoint["Host"];
	if (typeof host !== "string" || host === "") {
		throw new SlipwayError(
			"invalid-argument",
			`context ${JSON.stringify(name)} names no Docker host (${path})`,
		);
	}
	const tlsDirectory = join(contexts, "tls", id, "docker");
	const tls = existsSync(tlsDirectory)
		? readTls(tlsDirectory, endpoint["SkipTLSVerify"] === true)
		: undefined;
	return placeOfUrl(host, tls);
}

function readIfAny(path: string): string | undefined {
	try {
		return readFileSync(path, "utf8");
	} catch (thrown) {
		if (hasCode(toError(thrown), "not-found")) {
			return undefined;
		}
		throw wrap(thrown, `could not read ${path}`);
	}
}

function parseObject(text: string, path: string): Readonly<Record<string, unknown>> {
	try {
		return objectOf(JSON.parse(text));
	} catch {
		throw new SlipwayError("invalid-argument", `${path} is not valid JSON`);
	}
}

function objectOf(value: unknown): Readonly<Record<string, unknown>> {
	return typeof value === "object" && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
}
