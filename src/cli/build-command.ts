import { writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import type { SolveRequest } from "../client/client.ts";
import type { CommandTrace } from "../client/command-trace.ts";
import type { BuildOptions, BuildResponse } from "../control/control.ts";
import type { Explanation } from "../control/explain.ts";
import { version } from "../daemon/version.ts";
import { hasCode, SlipwayError, toError, wrap } from "../errors/errors.ts";
import type { ProgressSink } from "../progress/progress.ts";
import type { LocalSessionOptions } from "../session/local-session.ts";
import { buildFlags } from "./build-flags.ts";
import { type BuildPlan, planBuild } from "./build-plan.ts";
import { printAnswer } from "./call-plan.ts";
import type { DebugOptions } from "./debug-shell.ts";
import { engineOptions } from "./engine-options.ts";
import { helpLines, type ParsedFlags, parseFlags } from "./flags.ts";
import { metadataJson } from "./metadata-file.ts";
import { printWarnings } from "./print-warnings.ts";
import { readSourcePolicy } from "./source-policy.ts";
import type { Terminal } from "./terminal.ts";

/** `slipway build`: gives the exit code. Errors are thrown; the caller prints them. */
export async function buildCommand(argv: readonly string[], terminal: Terminal): Promise<number> {
	return await runBuild(parseFlags(argv, buildFlags), terminal, undefined);
}

/** `slipway debug build`: as `slipway build`, but a step that fails opens a shell. */
export async function debugBuildCommand(argv: readonly string[], terminal: Terminal): Promise<number> {
	const { debugFlags, debugOptions } = await import("./debug-shell.ts");
	const flags = parseFlags(argv, [...buildFlags, ...debugFlags]);
	if (flags.bool("help")) {
		terminal.stdout.write(
			`${[debugUsage, "", "Flags, and those of slipway build:", ...helpLines(debugFlags)].join("\n")}\n`,
		);
		return 0;
	}
	if (builderAddress(flags, terminal) !== undefined) {
		throw new SlipwayError(
			"unimplemented",
			"slipway debug build needs the own builder, which has the failed step's files at hand",
		);
	}
	return await runBuild(flags, terminal, debugOptions(flags));
}

async function runBuild(
	flags: ParsedFlags,
	terminal: Terminal,
	debug: DebugOptions | undefined,
): Promise<number> {
	if (flags.bool("help")) {
		terminal.stdout.write(`${[usage, "", "Flags:", ...helpLines(buildFlags)].join("\n")}\n`);
		return 0;
	}
	await using plan = await planBuild(flags, terminal);
	const { createDisplay } = await import("../progress/display.ts");
	const display = createDisplay({
		mode: plan.progressMode,
		out: terminal.stderr,
		env: terminal.env,
		onWarning: (message) => terminal.stderr.write(`WARNING: ${message}\n`),
	});
	const warnings: import("../progress/progress.ts").WarningRecord[] = [];
	const progress = {
		write: (event: import("../progress/progress.ts").ProgressEvent): void => {
			if (event.kind === "warning") {
				warnings.push(event.warning);
			}
			display.write(event);
		},
	};
	let response: BuildResponse;
	let explanation: Explanation | undefined;
	await using trace = await commandTrace(terminal);
	try {
		response = await (builderAddress(flags, terminal) === undefined ? solveHere : solveElsewhere)(
			plan,
			flags,
			terminal,
			progress,
			{
				...(trace === undefined ? {} : { trace }),
				...(plan.explain === undefined
					? {}
					: {
							explain: (why) => {
								explanation = why;
							},
						}),
				...(debug === undefined
					? {}
					: {
							async onFailedProcess(failed) {
								display.end();
								const { openDebugShell } = await import("./debug-shell.ts");
								await openDebugShell(failed, debug, terminal);
							},
						}),
			},
		);
		trace?.end();
	} catch (thrown) {
		trace?.end(toError(thrown).message);
		throw thrown;
	} finally {
		display.end();
		// Also of a build that failed: they may be why.
		if (plan.progressMode !== "quiet" && plan.progressMode !== "rawjson") {
			printWarnings(warnings, terminal, { debug: flags.bool("debug") });
		}
		if (explanation !== undefined) {
			await printExplanation(explanation, plan.explain, terminal);
		}
	}
	await plan.caches.finish(response);
	writeResults(plan, response, terminal);
	return plan.call === undefined ? 0 : printAnswer(plan.call, response.metadata, terminal.stdout);
}

/** `--builder`, `$SLIPWAY_BUILDER`: a builder that runs elsewhere, such as a buildkitd. Undefined: the own one. */
export function builderAddress(flags: ParsedFlags, { env }: Pick<Terminal, "env">): string | undefined {
	return flags.string("builder") || env["SLIPWAY_BUILDER"] || undefined;
}

type Solve = (
	plan: BuildPlan,
	flags: ParsedFlags,
	terminal: Terminal,
	progress: ProgressSink,
	watch: Pick<BuildOptions, "explain" | "onFailedProcess"> & { readonly trace?: CommandTrace },
) => Promise<BuildResponse>;

async function printExplanation(
	explanation: Explanation,
	format: BuildPlan["explain"],
	terminal: Terminal,
): Promise<void> {
	if (format === "json") {
		terminal.stdout.write(`${JSON.stringify(explanation)}\n`);
	} else {
		const { explanationText } = await import("./explain-text.ts");
		terminal.stderr.write(explanationText(explanation));
	}
}

/** The spans of this command, if somebody wants to have them. */
async function commandTrace({ env, stderr }: Terminal): Promise<CommandTrace | undefined> {
	const reasons = [
		"TRACEPARENT",
		"OTEL_TRACES_EXPORTER",
		"OTEL_EXPORTER_OTLP_ENDPOINT",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
	];
	if (!reasons.some((name) => env[name])) {
		return undefined;
	}
	const { openCommandTrace } = await import("../client/command-trace.ts");
	return openCommandTrace({
		name: "build",
		argv: ["slipway", "build"],
		program: { name: "slipway", version },
		env,
		warn: (message) => void stderr.write(`WARNING: ${message}\n`),
	});
}

const solveHere: Solve = async (plan, flags, terminal, progress, { trace, ...watch }) => {
	const { createLocalSession } = await import("../session/local-session.ts");
	// Of this process also where it is the daemon's: that has the same user.
	const why = process.env["SLIPWAY_SINGLE_ID"];
	if (why !== undefined && plan.progressMode !== "quiet") {
		terminal.stderr.write(`WARNING: all files of the image will belong to root: ${why}\n`);
	}
	const policy = await readSourcePolicy(terminal);
	const sourcePolicies = policy && [
		(await import("../control/source-policy-message.ts")).fromPolicyMessage(policy),
	];
	await using engine = await terminal.openEngine(engineOptions(flags, terminal));
	const { announcedAuth } = await import("../session/announced-auth.ts");
	await using session = createLocalSession({ ...plan.lends, ...announcedAuth(plan.lends, progress) });
	const spans =
		trace &&
		(await import("../control/build-trace.ts")).traceBuild(trace.tracing, {
			parent: trace.context,
			ref: plan.ref,
		});
	try {
		return await engine.build(
			{
				...solveRequest(plan),
				entitlements: plan.entitlements,
				...(sourcePolicies === undefined ? {} : { sourcePolicies }),
				cacheMountImports: plan.caches.mountImports,
				cacheMountExports: plan.caches.mountExports,
			},
			{
				session,
				progress: spans === undefined ? progress : eachOf([progress, spans]),
				signal: terminal.interrupted,
				...watch,
			},
		);
	} finally {
		spans?.end();
		if (flags.bool("debug")) {
			for (const note of engine.notes) {
				terminal.stderr.write(`DEBUG: ${note}\n`);
			}
		}
	}
};

function eachOf(sinks: readonly ProgressSink[]): ProgressSink {
	return {
		write(event) {
			for (const sink of sinks) {
				sink.write(event);
			}
		},
	};
}

const solveElsewhere: Solve = async (plan, flags, terminal, progress, { trace }) => {
	if (plan.explain !== undefined) {
		throw new SlipwayError(
			"unimplemented",
			"--explain needs the own builder: what another builder has built before is not known here",
		);
	}
	if (plan.caches.mountImports.length + plan.caches.mountExports.length > 0) {
		throw new SlipwayError(
			"unimplemented",
			"--cache-mount-from and --cache-mount-to need the own builder: BuildKit's protocol does not know them",
		);
	}
	const sourcePolicy = await readSourcePolicy(terminal);
	const { connectClient } = await import("../client/connect.ts");
	const { tlsDirectory } = await import("../client/dial.ts");
	const directory = flags.string("tlsdir");
	await using client = await connectClient(builderAddress(flags, terminal) ?? "", {
		env: terminal.env,
		signal: terminal.interrupted,
		trace,
		...(directory === undefined ? {} : { tls: tlsDirectory(resolve(terminal.cwd, directory)) }),
	});
	return await client.solve(
		{
			...solveRequest(plan),
			entitlements: plan.entitlements,
			...(sourcePolicy === undefined ? {} : { sourcePolicy }),
		},
		{ lends: await withTokens(plan.lends, terminal, progress), progress, signal: terminal.interrupted },
	);
};

/** The builder is another's: it gets tokens, and the logins stay here. */
async function withTokens(
	lends: LocalSessionOptions,
	{ env }: Terminal,
	progress: ProgressSink,
): Promise<LocalSessionOptions> {
	const { auth } = lends;
	if (auth === undefined) {
		return lends;
	}
	const { createTokenAuthority } = await import("../session/token-authority.ts");
	const { announcedAuth } = await import("../session/announced-auth.ts");
	const tokenAuthority = createTokenAuthority({ auth, env });
	return { ...lends, ...announcedAuth({ auth, tokenAuthority }, progress) };
}

function solveRequest(plan: BuildPlan): Omit<SolveRequest, "entitlements"> {
	return {
		ref: plan.ref,
		frontend: "dockerfile.v0",
		frontendOptions: plan.frontendOptions,
		frontendInputs: new Map(),
		definition: undefined,
		exporters: plan.exporters,
		cacheImports: plan.caches.imports,
		cacheExports: plan.caches.exports,
	};
}

const debugUsage = `Usage: slipway debug build [flags] PATH | URL | -

Builds as slipway build does; a step that fails opens a shell in its container.`;

const usage = `Usage: slipway build [flags] PATH | URL | -

Builds an image from a Dockerfile and a context.`;

/** As buildx names a build: builder, node, build. */
function withRef({ ref, call }: BuildPlan, response: BuildResponse): BuildResponse {
	const { exporterResponse } = response;
	return call === undefined
		? { ...response, exporterResponse: { ...exporterResponse, "buildx.build.ref": `default/default/${ref}` } }
		: response;
}

function writeResults(plan: BuildPlan, response: BuildResponse, terminal: Terminal): void {
	const imageId =
		response.exporterResponse["containerimage.config.digest"] ??
		response.exporterResponse["containerimage.digest"];
	if (plan.imageIdFile !== undefined) {
		writeTextFile(plan.imageIdFile, imageId ?? "", "image ID file");
	}
	if (plan.metadataFile !== undefined) {
		writeTextFile(plan.metadataFile, metadataJson(withRef(plan, response)), "metadata file");
	}
	if (plan.quiet && imageId !== undefined) {
		terminal.stdout.write(`${imageId}\n`);
	}
	const isShown = plan.progressMode !== "quiet" && plan.progressMode !== "rawjson";
	if (isShown && plan.exporters.length === 0 && plan.call === undefined) {
		terminal.stderr.write(
			"WARNING: No output specified. The result stays in the build cache only: name it with --tag, or write it with --output.\n",
		);
	}
}

function writeTextFile(path: string, text: string, what: string): void {
	try {
		writeFileSync(path, text);
	} catch (error) {
		const wrapped = wrap(error, `failed to write ${what} ${path}`);
		throw hasCode(wrapped, "not-found")
			? new SlipwayError(
					"not-found",
					`failed to write ${what} ${path}: directory ${dirname(path)} does not exist`,
					{ cause: error },
				)
			: wrapped;
	}
}
