import { appendFileSync, renameSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { resolve } from "node:path";
import type { Client, SolveRequest } from "../../client/client.ts";
import { SlipwayError, wrap } from "../../errors/errors.ts";
import { decodeDefinition } from "../../llb/definition-message.ts";
import type { Definition, OpMetadata } from "../../llb/llb.ts";
import { newIdentity } from "../../oci/identity.ts";
import { createDisplay } from "../../progress/display.ts";
import type { ProgressSink } from "../../progress/progress.ts";
import { createDockerAuth } from "../../session/docker-auth.ts";
import { createSecrets } from "../../session/secrets.ts";
import { createSshAgents } from "../../session/ssh-agent.ts";
import { createTokenAuthority } from "../../session/token-authority.ts";
import { planCaches } from "../cache-plan.ts";
import type { FlagSpec, ParsedFlags } from "../flags.ts";
import { metadataJson } from "../metadata-file.ts";
import { readStdin } from "../read-stdin.ts";
import { readPolicyFile } from "../source-policy.ts";
import type { Terminal } from "../terminal.ts";
import { parseDirectories, parseLayouts, parseOptions, parseOutput } from "./build-options.ts";

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
	{
		...text("debug-json-cache-metrics", "file", "Where to write cache metrics as JSON"),
		missing: "the history has the numbers: buildctl debug histories --format json",
	},
	{
		...list("registry-auth-tlscontext", "host=…", "TLS of a registry's token server"),
		missing: "give the builder the registry's certificates, in its configuration",
	},
	{
		name: "proxy-network",
		kind: "bool",
		help: "Enforce the proxy network",
		missing: "steps have no proxy network",
	},
	{ name: "help", short: "h", kind: "bool", help: "Show this help" },
];

/** `buildctl build`. */
export async function build(client: Client, flags: ParsedFlags, terminal: Terminal): Promise<void> {
	const frontend = flags.string("frontend") ?? "";
	const outputs = flags.list("output").map((each) => parseOutput(each, terminal));
	const path = (name: string): string | undefined => {
		const value = flags.string(name);
		return value === undefined || value === "" ? undefined : resolve(terminal.cwd, value);
	};
	const options: Record<string, string> = { ...parseOptions(flags.list("opt"), terminal.env) };
	const definition = frontend === "" ? await definitionFromStdin(flags, terminal) : undefined;
	if (frontend !== "" && flags.bool("no-cache")) {
		options["no-cache"] = "";
	}
	if (options["requestid"] !== undefined) {
		options["frontend.caps"] ??= "moby.buildkit.frontend.subrequests";
	}
	const directories = parseDirectories(flags.list("local"), terminal.cwd);
	const caches = planCaches({
		from: flags.list("import-cache"),
		to: flags.list("export-cache"),
		buildArgs: new Map(),
		terminal,
	});
	const policyFile = path("source-policy-file");
	const request: SolveRequest = {
		ref: newIdentity(),
		frontend: frontend === "" ? undefined : frontend,
		frontendOptions: options,
		frontendInputs: new Map(),
		definition,
		exporters: outputs,
		cacheExports: caches.exports,
		cacheImports: caches.imports,
		entitlements: flags.list("allow"),
		...(policyFile === undefined
			? {}
			: {
					sourcePolicy: await readPolicyFile(policyFile, {
						unread: `could not read ${policyFile}`,
						invalid: `failed to unmarshal source-policy-file ${JSON.stringify(policyFile)}`,
					}),
				}),
	};
	const display = createDisplay({
		mode: displayMode(flags, terminal),
		out: terminal.stderr,
		env: terminal.env,
	});
	const trace = path("trace");
	const progress = trace === undefined ? display : await traced(display, trace);
	const refFile = path("ref-file");
	const auth = createDockerAuth({ env: terminal.env });
	try {
		const response = await client.solve(request, {
			lends: {
				id: newIdentity(),
				sharedKey: `${hostname()}:${directories["context"]?.path ?? terminal.cwd}`,
				directories,
				contentStores: { ...parseLayouts(flags.list("oci-layout"), terminal.cwd), ...caches.contentStores },
				contentWriters: caches.contentWriters,
				auth,
				tokenAuthority: createTokenAuthority({ auth, env: terminal.env }),
				secrets: createSecrets(flags.list("secret"), terminal),
				...(flags.given("ssh") ? { ssh: createSshAgents(flags.list("ssh"), terminal) } : {}),
				outputs: outputs.map(({ output }) => output),
			},
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
	}
}

function displayMode(flags: ParsedFlags, { env }: Terminal): string {
	const given = flags.string("progress") ?? "auto";
	return given === "auto" ? (env["BUILDKIT_PROGRESS"] ?? "auto") : given;
}

async function definitionFromStdin(flags: ParsedFlags, terminal: Terminal): Promise<Definition> {
	if (terminal.stdin.isTTY === true) {
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

/** Also writes what passes as `--progress rawjson` would. */
async function traced(sink: ProgressSink, path: string): Promise<ProgressSink> {
	const { formatSolveStatus } = await import("../../progress/raw-json.ts");
	return {
		write(event) {
			sink.write(event);
			appendFileSync(path, formatSolveStatus([event]), { mode: 0o600 });
		},
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
