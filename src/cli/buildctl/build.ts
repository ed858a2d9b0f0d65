import { closeSync, fstatSync, openSync, renameSync, writeFileSync, writeSync } from "node:fs";
import { hostname } from "node:os";
import { resolve } from "node:path";
import type { SolveRequest } from "../../client/client.ts";
import { parseEntitlement } from "../../control/entitlements.ts";
import { createLogger, type Logger } from "../../daemon/logger.ts";
import { SlipwayError, wrap } from "../../errors/errors.ts";
import { decodeDefinition } from "../../llb/definition-message.ts";
import type { Definition, OpMetadata } from "../../llb/llb.ts";
import { newIdentity } from "../../oci/identity.ts";
import { createDisplay } from "../../progress/display.ts";
import type { ProgressSink } from "../../progress/progress.ts";
import { announcedAuth } from "../../session/announced-auth.ts";
import { createDockerAuth } from "../../session/docker-auth.ts";
import type { LocalSessionOptions } from "../../session/local-session.ts";
import { createSecrets } from "../../session/secrets.ts";
import type { SessionOutput } from "../../session/session.ts";
import { createSshAgents } from "../../session/ssh-agent.ts";
import { createTokenAuthority } from "../../session/token-authority.ts";
import { planCaches } from "../cache-plan.ts";
import type { FlagSpec, ParsedFlags } from "../flags.ts";
import { metadataJson } from "../metadata-file.ts";
import { readStdin } from "../read-stdin.ts";
import { readPolicyFile } from "../source-policy.ts";
import type { Terminal } from "../terminal.ts";
import { cacheOption, parseDirectories, parseLayouts, parseOptions, parseOutput } from "./build-options.ts";
import type { CommandContext } from "./buildctl.ts";
import { openCacheMetrics } from "./cache-metrics.ts";
import { parseRegistryTls } from "./registry-tls.ts";

const list = (name: string, value: string, help: string, short?: string): FlagSpec => ({
	name,
	kind: "list",
	value,
	help,
	...(short === undefined ? {} : { short }),
});
const text = (name: string, value: string, help: string): FlagSpec => ({ name, kind: "string", value, help });

export const buildFlags: readonly FlagSpec[] = [
	list("output", "type=…", "Define an export of the result, such as type=image,name=NAME,push=true", "o"),
	text("progress", "type", "Type of progress: auto, plain, tty, quiet, rawjson"),
	text("trace", "file", "Write the progress as JSON lines to this file"),
	list("local", "name=dir", "Allow the build access to a local directory"),
	list("oci-layout", "id=dir", "Allow the build access to a local OCI layout"),
	text("frontend", "name", "Frontend that is used for the build"),
	list("opt", "key=value", "Option for the frontend, such as target=foo or build-arg:foo=bar"),
	{ name: "no-cache", kind: "bool", help: "Disable the cache for all steps" },
	list(
		"export-cache",
		"type=…",
		"Export the build cache, such as type=registry,ref=NAME or type=local,dest=DIR",
	),
	list(
		"import-cache",
		"type=…",
		"Import a build cache, such as type=registry,ref=NAME or type=local,src=DIR",
	),
	list("secret", "id=…", "Secret value for the build: id=NAME[,src=FILE|,env=VARIABLE]"),
	list("allow", "entitlement", "Allow a privileged entitlement: network.host, security.insecure, device"),
	list("ssh", "id", "Allow use of an SSH agent: default|<id>[=<socket>|<key>[,<key>]]"),
	text("metadata-file", "file", "Write build metadata, such as the image digest, to a file as JSON"),
	text("source-policy-file", "file", "Read a source policy from a JSON file"),
	text("ref-file", "file", "Write the build's ref to a file"),
	text("debug-json-cache-metrics", "file", "Where to write cache metrics as JSON: stdout, stderr or a file"),
	list(
		"registry-auth-tlscontext",
		"host=…",
		"TLS towards the token server of a registry: host=HOST[,ca=FILE][,cert=FILE,key=FILE][,insecure=true]",
	),
	{
		name: "proxy-network",
		kind: "bool",
		help: "Steps reach the network through a proxy of buildkitd; Slipway's builders refuse it",
	},
	{ name: "help", short: "h", kind: "bool", help: "Show this help" },
];

/** `buildctl build`. */
export async function build({ client, flags, globals, terminal }: CommandContext): Promise<void> {
	const path = (name: string): string | undefined => {
		const value = flags.string(name);
		return value === undefined || value === "" ? undefined : resolve(terminal.cwd, value);
	};
	const logger = createLogger(
		{ format: globals.string("log-format") === "json" ? "json" : "text", level: "info" },
		(line) => void terminal.stderr.write(line),
	);
	using files = new DisposableStack();
	const traceFile = path("trace");
	const trace = traceFile === undefined ? undefined : files.use(await openTraceFile(traceFile));
	const metricsPlace = flags.string("debug-json-cache-metrics") ?? "";
	const metrics =
		metricsPlace === ""
			? undefined
			: files.use(openCacheMetrics(metricsPlace, resolve(terminal.cwd, metricsPlace), terminal));
	if (traceFile !== undefined) {
		logger.log("info", `tracing logs to ${flags.string("trace")}`);
	}
	const { request, lends, caches, outputs } = await planRequest(flags, terminal, logger);
	const refFile = path("ref-file");
	const display = createDisplay({
		mode: displayMode(flags, terminal),
		out: terminal.stderr,
		env: terminal.env,
	});
	if (metrics !== undefined) {
		logger.log("info", `writing JSON cache metrics to ${shownFile(metricsPlace)}`);
	}
	const sinks = [
		display,
		...(trace === undefined ? [] : [trace]),
		...(metrics === undefined ? [] : [metrics]),
	];
	try {
		const builder = await client.call(
			"listing workers for Build: failed to list workers",
			async (each) => each,
		);
		const progress: ProgressSink = { write: (event) => sinks.forEach((sink) => void sink.write(event)) };
		const response = await builder.solve(request, {
			lends: { ...lends, ...announcedAuth(lends, progress), outputs },
			progress,
			signal: terminal.interrupted,
		});
		await caches.finish(response);
		const metadataFile = path("metadata-file");
		if (metadataFile !== undefined) {
			replaceFile(metadataFile, metadataJson(response));
		}
		display.end();
		printAnswer(response.metadata, terminal);
	} finally {
		display.end();
		if (refFile !== undefined) {
			replaceFile(refFile, request.ref);
		}
		metrics?.finish();
	}
}

/** As the file is called in BuildKit's client. */
function shownFile(place: string): string {
	return place === "stdout" || place === "stderr" ? `/dev/${place}` : place;
}

interface PlannedRequest {
	readonly request: SolveRequest;
	readonly lends: LocalSessionOptions;
	readonly caches: ReturnType<typeof planCaches>;
	readonly outputs: readonly (SessionOutput | undefined)[];
}

/** Throws `invalid-argument` for what is wrong with a flag, in the order in which BuildKit's client looks at them. */
async function planRequest(flags: ParsedFlags, terminal: Terminal, logger: Logger): Promise<PlannedRequest> {
	const { cwd, env } = terminal;
	const frontend = flags.string("frontend") ?? "";
	const tls = parseRegistryTls(flags.list("registry-auth-tlscontext"), cwd);
	const ssh = flags.given("ssh") ? createSshAgents(flags.list("ssh"), terminal) : undefined;
	const secrets = createSecrets(flags.list("secret"), terminal);
	flags.list("allow").forEach(parseEntitlement);
	const outputs = flags.list("output").map((each) => parseOutput(each, terminal));
	const caches = planCaches({
		to: flags.list("export-cache").map((each) => cacheOption("--export-cache", each, logger)),
		from: flags.list("import-cache").map((each) => cacheOption("--import-cache", each, logger)),
		buildArgs: new Map(),
		terminal,
	});
	const policyFile = flags.string("source-policy-file") || undefined;
	const sourcePolicy =
		policyFile === undefined
			? undefined
			: await readPolicyFile(resolve(cwd, policyFile), {
					unread: `could not read ${policyFile}`,
					invalid: `failed to unmarshal source-policy-file ${JSON.stringify(policyFile)}`,
				});
	const options: Record<string, string> = { ...parseOptions(flags.list("opt"), env) };
	const directories = parseDirectories(flags.list("local"), cwd);
	const layouts = parseLayouts(flags.list("oci-layout"), cwd);
	const definition = frontend === "" ? await definitionFromStdin(flags, terminal) : undefined;
	if (frontend !== "" && flags.bool("no-cache")) {
		options["no-cache"] = "";
	}
	if (options["requestid"] !== undefined) {
		options["frontend.caps"] ??= "moby.buildkit.frontend.subrequests";
	}
	const auth = createDockerAuth({ env });
	return {
		request: {
			ref: newIdentity(),
			frontend: frontend === "" ? undefined : frontend,
			frontendOptions: options,
			frontendInputs: new Map(),
			definition,
			exporters: outputs,
			cacheExports: caches.exports,
			cacheImports: caches.imports,
			entitlements: flags.list("allow"),
			proxyNetwork: flags.bool("proxy-network"),
			...(sourcePolicy === undefined ? {} : { sourcePolicy }),
		},
		lends: {
			id: newIdentity(),
			sharedKey: `${hostname()}:${directories["context"]?.path ?? cwd}`,
			directories,
			contentStores: { ...layouts, ...caches.contentStores },
			contentWriters: caches.contentWriters,
			auth,
			tokenAuthority: createTokenAuthority({ auth, env, tls }),
			secrets,
			...(ssh === undefined ? {} : { ssh }),
		},
		caches,
		outputs: outputs.map(({ output }) => output),
	};
}

function displayMode(flags: ParsedFlags, { env }: Terminal): string {
	const given = flags.string("progress") ?? "auto";
	return given === "auto" ? (env["BUILDKIT_PROGRESS"] ?? "auto") : given;
}

async function definitionFromStdin(flags: ParsedFlags, terminal: Terminal): Promise<Definition> {
	if (terminal.stdin.isTTY === true || isCharacterDevice(terminal.stdin as { readonly fd?: number })) {
		throw new SlipwayError("invalid-argument", "please specify --frontend or pipe LLB definition to stdin");
	}
	let definition: Definition;
	try {
		definition = decodeDefinition(await readStdin(terminal));
	} catch (thrown) {
		throw wrap(thrown, "failed to parse input");
	}
	if (definition.ops.length === 0) {
		throw new SlipwayError("invalid-argument", "empty definition sent to build. Specify --frontend instead?");
	}
	if (!flags.bool("no-cache")) {
		return definition;
	}
	const nothing: OpMetadata = { ignoreCache: false, description: new Map(), caps: new Set() };
	const metadata = new Map(
		definition.ops.map(({ digest }): [string, OpMetadata] => {
			const known = definition.metadata.get(digest) ?? nothing;
			return [digest, { ...known, ignoreCache: true, caps: new Set([...known.caps, "meta.ignorecache"]) }];
		}),
	);
	return { ...definition, metadata };
}

/** `/dev/null` as well: nobody piped anything. */
function isCharacterDevice({ fd }: { readonly fd?: number }): boolean {
	return fd !== undefined && fstatSync(fd).isCharacterDevice();
}

/** `--trace`: what passes, as `--progress rawjson` shows it, at the end of what the file has. */
async function openTraceFile(path: string): Promise<ProgressSink & Disposable> {
	const { formatSolveStatus } = await import("../../progress/raw-json.ts");
	let file: number;
	try {
		file = openSync(path, "a", 0o600);
	} catch (thrown) {
		throw wrap(thrown, `could not write ${path}`);
	}
	return {
		write: (event) => void writeSync(file, `${formatSolveStatus([event])}\n`),
		[Symbol.dispose]: () => closeSync(file),
	};
}

function replaceFile(path: string, content: string): void {
	const temporary = `${path}.${process.pid}`;
	try {
		writeFileSync(temporary, content, { mode: 0o666 });
		renameSync(temporary, path);
	} catch (thrown) {
		throw wrap(thrown, `could not write ${path}`);
	}
}

function printAnswer(metadata: Readonly<Record<string, Uint8Array>>, { stdout }: Terminal): void {
	const decoder = new TextDecoder();
	const answer = metadata["result.txt"];
	if (answer !== undefined) {
		stdout.write(decoder.decode(answer));
		return;
	}
	for (const [key, value] of Object.entries(metadata)) {
		if (key.startsWith("result.")) {
			stdout.write(`${key}\n${decoder.decode(value)}\n`);
		}
	}
}
