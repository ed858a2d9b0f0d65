import { randomBytes } from "node:crypto";
import { SlipwayError, toError, wrap } from "../errors/errors.ts";
import type { RunOptions } from "../executor/executor.ts";
import { execCacheDigest, execDependencies } from "../llb/cache-digest.ts";
import type { LinuxResources, LoadedOp } from "../llb/llb.ts";
import type { ExecOp, ProxyEnv } from "../llb/op.ts";
import { setDefaultEnv } from "../oci/env.ts";
import { defaultPath } from "../oci/image-config.ts";
import type { Platform } from "../oci/platform.ts";
import type { CacheMapAnswer, Op, StepContext } from "../solver/solver.ts";
import type { CacheMounts } from "./cache-mounts.ts";
import { contentDigestOf } from "./content-input.ts";
import { findEmulator, startEmulator, watchForeignProgram } from "./emulation.ts";
import { findSecret, type PreparedMounts, prepareMounts } from "./exec-mounts.ts";
import { keepFailed } from "./keep-failed.ts";
import { createTimeLimit, formatTimeout, limitsOf } from "./step-limits.ts";
import { createStepLog } from "./step-log.ts";
import { traceAccess } from "./step-trace.ts";
import { clientsOf, type Output, type WorkerServices } from "./worker.ts";

export interface ExecStep {
	readonly op: ExecOp;
	readonly loaded: LoadedOp;
	readonly platform: Platform;
	readonly ignoreCache: boolean;
	readonly resources: LinuxResources | undefined;
}

/** Runs a process on its mounts; its outputs are what the mounts became. */
export function execOp(step: ExecStep, services: WorkerServices, cacheMounts: CacheMounts): Op<Output> {
	return {
		cacheMap: async () => execCacheMap(step),
		execute: (inputs, context) => execute(step, inputs, { services, cacheMounts, context }),
	};
}

function execCacheMap({ op, loaded, platform }: ExecStep): CacheMapAnswer<Output> {
	return {
		map: {
			digest: execCacheDigest(op, platform),
			inputs: execDependencies(op).map((each, index) => contentDigestOf(each, { op: loaded, index })),
		},
		last: true,
	};
}

interface ExecContext {
	readonly services: WorkerServices;
	readonly cacheMounts: CacheMounts;
	readonly context: StepContext;
}

async function execute(
	step: ExecStep,
	inputs: readonly Output[],
	{ services, cacheMounts, context }: ExecContext,
): Promise<readonly Output[]> {
	const { op } = step;
	if (op.meta.args.length === 0) {
		throw new SlipwayError("invalid-argument", "invalid exec op with no args");
	}
	const devices = services.devices.edits(services.devices.find(op.devices));
	await using prepared = await prepareOrKeep(step, inputs, { services, cacheMounts, context });
	const keep = (): Promise<void> =>
		keepFailed({ op: step.loaded }, context, async () => {
			const mounts = await prepared.leave();
			return { inputs: mountInputs(step, inputs), mounts, made: mounts };
		});
	const env = await environment(step, context).catch(async (error: unknown) => {
		await keep();
		throw error;
	});
	const traced = traceAccess(clientsOf(context).find((each) => each.trace)?.trace, context.vertex, env);
	const log = createStepLog(context, services.logLimits);
	const timeoutMs = limitsOf(context)?.timeoutMs;
	using time = createTimeLimit(timeoutMs, context.signal);
	const emulation = await startEmulator(
		findEmulator(step.platform, { runnable: services.platforms, searchPath: services.searchPath }),
	);
	const foreign = watchForeignProgram(step.platform, services.platforms);
	const options: RunOptions = {
		id: randomBytes(12).toString("hex"),
		root: prepared.root,
		mounts: [...prepared.mounts, ...traced.mounts, ...emulation.mounts],
		process: {
			args: [...emulation.args, ...op.meta.args],
			env: traced.env,
			cwd: op.meta.cwd,
			user: op.meta.user,
		},
		network: op.network,
		security: op.security,
		...(op.meta.hostname === "" ? {} : { hostname: op.meta.hostname }),
		extraHosts: op.meta.extraHosts,
		ulimits: op.meta.ulimits,
		...(op.meta.cgroupParent === "" ? {} : { cgroupParent: op.meta.cgroupParent }),
		...(step.resources === undefined ? {} : { resources: runtimeResources(step.resources) }),
		...(devices.length === 0 ? {} : { devices }),
		platform: step.platform,
		...(emulation.userNamespace === undefined ? {} : { userNamespace: emulation.userNamespace }),
		removeMountStubsRecursive: op.meta.removeMountStubsRecursive,
		onOutput: (stream, chunk) => {
			log.write(stream, chunk);
			foreign?.see(chunk);
		},
		signal: time.signal,
	};
	const failed = `process ${JSON.stringify(op.meta.args.join(" "))} did not complete successfully`;
	try {
		time.start();
		const status = await services.executor.run(options).catch((error: unknown) => {
			if (context.signal.aborted) {
				throw wrap(error, "");
			}
			if (time.isOver()) {
				log.flush();
				const limit = `the time limit of ${formatTimeout(timeoutMs ?? 0)}`;
				throw new SlipwayError(
					"deadline-exceeded",
					`${failed}: killed at ${limit} for ${JSON.stringify(step.loaded.name)} (--step-timeout)`,
					{ cause: error },
				);
			}
			const cause = toError(error);
			const why = foreign?.explain(cause.message);
			throw wrap(why === undefined ? cause : wrap(cause, why), failed);
		});
		const valid = op.meta.validExitCodes.length === 0 ? [0] : op.meta.validExitCodes;
		if (!valid.includes(status.code)) {
			log.flush();
			const foreignProgram = foreign?.explain("");
			const why = status.outOfMemory
				? ": cannot allocate memory"
				: foreignProgram === undefined
					? ""
					: `: ${foreignProgram}`;
			throw new SlipwayError("unknown", `${failed}: exit code: ${status.code}${why}`, {
				details: [{ kind: "exit", code: status.code }],
			});
		}
	} catch (error) {
		await keep();
		throw error;
	}
	return await prepared.commit();
}

/** The trees of the op's mounts, as they were given. */
function mountInputs({ op }: ExecStep, inputs: readonly Output[]): readonly Output[] {
	return op.mounts.map((mount) =>
		"input" in mount && mount.input !== undefined ? inputs[mount.input] : undefined,
	);
}

/** What cannot even be mounted leaves its trees too. */
async function prepareOrKeep(
	step: ExecStep,
	inputs: readonly Output[],
	{ services, cacheMounts, context }: ExecContext,
): Promise<PreparedMounts> {
	try {
		return await prepareMounts({ ...step, inputs, services, cacheMounts, context });
	} catch (error) {
		const given = mountInputs(step, inputs);
		await keepFailed({ op: step.loaded }, context, async () => ({ inputs: given, mounts: given }));
		throw error;
	}
}

async function environment({ op, platform }: ExecStep, context: StepContext): Promise<readonly string[]> {
	const proxied = [...op.meta.env, ...(op.meta.proxyEnv === undefined ? [] : proxyEnv(op.meta.proxyEnv))];
	const env = platform.os === "windows" ? proxied : setDefaultEnv(proxied, "PATH", defaultPath);
	const decoder = new TextDecoder();
	for (const secret of op.secretEnv) {
		const data = await findSecret(context, secret.id, secret.optional);
		env.push(`${secret.name}=${data === undefined ? "" : decoder.decode(data)}`);
	}
	return env;
}

/** Both spellings: programs disagree. */
function proxyEnv(proxy: ProxyEnv): readonly string[] {
	const values = {
		http_proxy: proxy.httpProxy,
		https_proxy: proxy.httpsProxy,
		ftp_proxy: proxy.ftpProxy,
		no_proxy: proxy.noProxy,
		all_proxy: proxy.allProxy,
	};
	return Object.entries(values)
		.filter(([, value]) => value !== "")
		.flatMap(([name, value]) => [`${name.toUpperCase()}=${value}`, `${name}=${value}`]);
}

/** In the graph 0 and empty are no limit; for the runtime an absent one is. */
function runtimeResources(resources: LinuxResources): NonNullable<RunOptions["resources"]> {
	return Object.fromEntries(Object.entries(resources).filter(([, value]) => value !== 0 && value !== ""));
}
