import { createHash, randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { resolve } from "node:path";
import type { Entitlement, ExporterRequest } from "../control/control.ts";
import { entitlements } from "../control/control.ts";
import { parseEntitlement } from "../control/entitlements.ts";
import { SlipwayError } from "../errors/errors.ts";
import { csvFields } from "../oci/csv-fields.ts";
import { newIdentity } from "../oci/identity.ts";
import { parsePlatform } from "../oci/platform.ts";
import { formatReference, parseReference, withDefaultTag } from "../oci/reference.ts";
import type { LocalSessionOptions } from "../session/local-session.ts";
import { annotationOptions } from "./annotation-options.ts";
import { buildArguments, hostEntries, keyValues, memoryBytes, ulimits } from "./build-values.ts";
import { type CachePlan, planCaches } from "./cache-plan.ts";
import { type Call, planCall } from "./call-plan.ts";
import { planContexts } from "./context-plan.ts";
import { type ExplainFormat, explainFormat } from "./explain-text.ts";
import type { ParsedFlags } from "./flags.ts";
import { type OutputPlan, planOutputs } from "./output-plan.ts";
import { proxyArguments } from "./proxy-args.ts";
import { readStdin } from "./read-stdin.ts";
import { resourceOptions } from "./resource-values.ts";
import { stepLimitOptions } from "./step-limits.ts";
import type { Terminal } from "./terminal.ts";

/** A build as the engine wants it, from the command line. Disposing it removes what was unpacked for it. */
export interface BuildPlan extends AsyncDisposable {
	/** Names this build; `^[a-z0-9]+$`. */
	readonly ref: string;
	readonly frontendOptions: Readonly<Record<string, string>>;
	/** What the builder may take from here. */
	readonly lends: LocalSessionOptions;
	readonly caches: CachePlan;
	readonly exporters: readonly ExporterRequest[];
	readonly entitlements: readonly Entitlement[];
	readonly progressMode: string;
	/** Instead of a build. */
	readonly call: Call | undefined;
	/** How the reasons of steps that ran are told. */
	readonly explain: ExplainFormat | undefined;
	readonly quiet: boolean;
	readonly imageIdFile: string | undefined;
	readonly metadataFile: string | undefined;
}

export async function planBuild(flags: ParsedFlags, terminal: Terminal): Promise<BuildPlan> {
	if (flags.args.length !== 1) {
		throw new SlipwayError(
			"invalid-argument",
			`slipway build requires exactly 1 argument, the build context (such as "."), but got ${flags.args.length}; see 'slipway build --help'`,
		);
	}
	if (flags.bool("no-cache") && flags.list("no-cache-filter").length > 0) {
		throw new SlipwayError(
			"invalid-argument",
			"--no-cache and --no-cache-filter cannot currently be used together",
		);
	}
	const call = planCall(flags);
	await using stack = new AsyncDisposableStack();
	const contexts = stack.use(
		await planContexts({
			context: flags.args[0] ?? "",
			cwd: terminal.cwd,
			dockerfile: flags.string("file"),
			named: flags.list("build-context"),
			stdin: () => terminal.stdin,
			signal: terminal.interrupted,
		}),
	);
	const quiet = flags.bool("quiet");
	const tags = flags.list("tag").map(imageName);
	const caches = planCaches({
		from: flags.list("cache-from"),
		to: flags.list("cache-to"),
		mountsFrom: flags.list("cache-mount-from"),
		mountsTo: flags.list("cache-mount-to"),
		buildArgs: new Map(buildArguments(flags.list("build-arg"), terminal.env)),
		terminal,
	});
	const granted = grantedEntitlements(flags);
	const outputs =
		call === undefined
			? await planOutputs({
					specs: flags.list("output"),
					tags,
					push: flags.bool("push"),
					load: flags.bool("load"),
					annotations: annotationOptions(flags.list("annotation")),
					wantsImageId: flags.string("iidfile") !== undefined,
					allowDelete: flags.list("allow").includes(deleteEntitlement),
					terminal,
				})
			: noOutputs;
	const { createDockerAuth } = await import("../session/docker-auth.ts");
	const secrets = await secretsOf(flags, terminal, flags.args[0] !== "-" && flags.string("file") !== "-");
	const ssh = await sshOf(flags, terminal, contexts.options);
	const lends: LocalSessionOptions = {
		id: newIdentity(),
		sharedKey: sharedKey(contexts.sharedName),
		directories: contexts.directories,
		contentStores: { ...contexts.contentStores, ...caches.contentStores },
		contentWriters: caches.contentWriters,
		auth: createDockerAuth({ env: terminal.env }),
		...secrets,
		...ssh,
		outputs: outputs.outputs,
	};
	const pathFlag = (name: string): string | undefined => {
		const value = flags.string(name);
		return value === undefined ? undefined : resolve(terminal.cwd, value);
	};
	const held = stack.move();
	return {
		ref: randomBytes(12).toString("hex"),
		frontendOptions: {
			...contexts.options,
			...frontendOptions(flags, terminal),
			...(caches.imports.length === 0 ? {} : { "cache-imports": cacheImportsOption(caches.imports) }),
			...(call === undefined
				? {}
				: {
						requestid: `frontend.${call.name}`,
						"frontend.caps": "moby.buildkit.frontend.subrequests",
					}),
		},
		lends,
		caches,
		exporters: outputs.exporters,
		entitlements: granted,
		call,
		explain: explainFormat(flags),
		progressMode: quiet ? "quiet" : (flags.string("progress") ?? terminal.env["BUILDKIT_PROGRESS"] ?? "auto"),
		quiet,
		imageIdFile: pathFlag("iidfile"),
		metadataFile: pathFlag("metadata-file"),
		[Symbol.asyncDispose]: () => held.disposeAsync(),
	};
}

/** Frontends hand the imports on with the graphs that they ask for. */
function cacheImportsOption(imports: CachePlan["imports"]): string {
	return JSON.stringify(imports.map(({ type, attrs }) => ({ Type: type, Attrs: attrs })));
}

async function secretsOf(
	flags: ParsedFlags,
	terminal: Terminal,
	stdinIsFree: boolean,
): Promise<Pick<LocalSessionOptions, "secrets">> {
	const secrets = flags.list("secret");
	if (secrets.length === 0) {
		return {};
	}
	const { createSecrets } = await import("../session/secrets.ts");
	return {
		secrets: createSecrets(secrets, {
			env: terminal.env,
			cwd: terminal.cwd,
			...(stdinIsFree ? { readStdin: () => readStdin(terminal) } : {}),
		}),
	};
}

/** What is fetched from git by ssh gets the user's agent unasked. */
async function sshOf(
	flags: ParsedFlags,
	terminal: Terminal,
	contexts: Readonly<Record<string, string>>,
): Promise<Pick<LocalSessionOptions, "ssh">> {
	const given = flags.list("ssh");
	const isDefaultGiven = given.some((spec) => spec === "default" || spec.startsWith("default="));
	const usesGit = Object.entries(contexts).some(
		([name, value]) =>
			(name === "context" || name.startsWith("context:")) &&
			/^(?:ssh:\/\/|[A-Za-z0-9_][\w.+-]*@[\w.-]+:)/.test(value),
	);
	const specs = usesGit && !isDefaultGiven && terminal.env["SSH_AUTH_SOCK"] ? [...given, "default"] : given;
	if (specs.length === 0) {
		return {};
	}
	const { createSshAgents } = await import("../session/ssh-agent.ts");
	return { ssh: createSshAgents(specs, terminal) };
}

/** Names what another build of the same directory on this machine may reuse. */
function sharedKey(name: string): string {
	return `${name}:${createHash("sha256").update(hostname()).digest("hex").slice(0, 16)}`;
}

function imageName(text: string): string {
	try {
		return formatReference(withDefaultTag(parseReference(text)));
	} catch (error) {
		throw new SlipwayError(
			"invalid-argument",
			`invalid tag ${JSON.stringify(text)}: ${error instanceof Error ? error.message : error}`,
			{ cause: error },
		);
	}
}

/** Concerns the client only, not the builder. */
const deleteEntitlement = "buildx.local.delete";

/** A question delivers nothing but its answer. */
const noOutputs: OutputPlan = { exporters: [], outputs: [] };

function grantedEntitlements(flags: ParsedFlags): readonly Entitlement[] {
	const asked = flags.list("allow").filter((text) => text !== deleteEntitlement);
	const granted = asked.map((text): Entitlement => {
		try {
			return parseEntitlement(text);
		} catch (error) {
			throw new SlipwayError(
				"invalid-argument",
				`invalid entitlement: ${text}; one of ${entitlements.join(", ")}`,
				{ cause: error },
			);
		}
	});
	return flags.string("network") === "host" && !granted.includes("network.host")
		? [...granted, "network.host"]
		: granted;
}

function frontendOptions(flags: ParsedFlags, terminal: Terminal): Record<string, string> {
	const options: Record<string, string> = {};
	const args = buildArguments(flags.list("build-arg"), terminal.env);
	for (const [name, value] of [...proxyArguments(args, terminal), ...args]) {
		options[`build-arg:${name}`] = value;
	}
	for (const [name, value] of keyValues("label", flags.list("label"))) {
		options[`label:${name}`] = value;
	}
	const wanted = flags.given("platform")
		? flags.list("platform")
		: [terminal.env["DOCKER_DEFAULT_PLATFORM"] ?? ""];
	const platforms = wanted
		.flatMap((text) => text.split(","))
		.map((text) => text.trim())
		.filter((text) => text !== "");
	if (platforms.length > 0) {
		for (const platform of platforms) {
			if (platform !== "local") {
				parsePlatform(platform);
			}
		}
		options["platform"] = platforms.join(",");
	}
	const text = (
		flag: string,
		option: string,
		convert: (value: string) => string = (value) => value,
	): void => {
		const value = flags.string(flag);
		if (value !== undefined && value !== "") {
			options[option] = convert(value);
		}
	};
	text("target", "target");
	text("cgroup-parent", "cgroup-parent");
	text("shm-size", "shm-size", (value) => memoryBytes("--shm-size", value));
	text("network", "force-network-mode", networkMode);
	if (flags.bool("no-cache")) {
		options["no-cache"] = "";
	}
	const stages = flags.list("no-cache-filter").flatMap((value) => csvFields(value));
	if (stages.length > 0) {
		options["no-cache"] = stages.join(",");
	}
	if (flags.bool("pull")) {
		options["image-resolve-mode"] = "pull";
	}
	const hosts = flags.list("add-host");
	if (hosts.length > 0) {
		options["add-hosts"] = hostEntries(hosts);
	}
	const limits = flags.list("ulimit");
	if (limits.length > 0) {
		options["ulimit"] = ulimits(limits);
	}
	Object.assign(options, resourceOptions(flags), stepLimitOptions(flags));
	if (options["force-network-mode"] === "default") {
		delete options["force-network-mode"];
	}
	return options;
}

function networkMode(value: string): string {
	if (value === "default" || value === "host" || value === "none") {
		return value;
	}
	throw new SlipwayError(
		"invalid-argument",
		`network mode ${JSON.stringify(value)} is not supported: use default, host or none`,
	);
}
