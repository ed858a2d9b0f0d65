import { Op as OpMessage } from "../api/generated/ops.ts";
import type { ImmutableRef } from "../cache/cache.ts";
import { canceled, SlipwayError, toError } from "../errors/errors.ts";
import type { BuildResult, Exporter } from "../exporter/exporter.ts";
import type { FrontendRef, FrontendResult } from "../frontend/frontend.ts";
import { fromOpMessage } from "../llb/op-from-message.ts";
import type { CacheKey } from "../solver/solver.ts";
import { stepLimitsOf } from "../worker/step-limits.ts";
import type { JobClient, Output } from "../worker/worker.ts";
import { createBridge, type JobBridge } from "./bridge.ts";
import { openBuildCaches } from "./build-caches.ts";
import { type BuildMounts, openBuildMounts } from "./build-mounts.ts";
import type {
	BuildOptions,
	BuildRequest,
	BuildResponse,
	Controller,
	ControllerServices,
	Entitlement,
	ExporterRequest,
} from "./control.ts";
import { entitlementName } from "./entitlements.ts";
import { createFailedSteps } from "./failed-steps.ts";
import { runExporters } from "./run-exporters.ts";
import { verifyPlatforms } from "./verify-platforms.ts";

export function createController(services: ControllerServices): Controller {
	return { build: (request, options) => build(services, request, options) };
}

async function build(
	services: ControllerServices,
	request: BuildRequest,
	options: BuildOptions,
): Promise<BuildResponse> {
	const exporters = request.exporters.map(({ type, attrs }) =>
		exporterOf(services, { type, attrs: withEpoch(attrs, request.frontendOptions) }),
	);
	const allowed = grantedEntitlements(services, request);
	await using failedSteps = createFailedSteps();
	const limits = stepLimitsOf(request.frontendOptions);
	const { cacheMountImports = [], cacheMountExports = [] } = request;
	await using mounts = openMounts(services, { cacheMountImports, cacheMountExports }, options);
	const client: JobClient = {
		session: options.session,
		...(mounts?.forSteps === undefined ? {} : { travellingMounts: mounts.forSteps }),
		onOutputs: (vertex, outputs) => caches?.made(vertex, outputs),
		...(limits === undefined ? {} : { limits }),
		...(options.trace === undefined ? {} : { trace: options.trace }),
		// Others show the error and are gone.
		...(isGateway(request) || options.onFailedProcess !== undefined
			? { keepFailed: (state) => failedSteps.keep(state) }
			: {}),
	};
	await using explained = services.explainer?.open(request, { ...options, report: options.explain });
	const progress = explained?.progress ?? options.progress;
	await using job = services.solver.openJob({ id: request.ref, progress, client });
	const { sourcePolicies = [], cacheImports = [], cacheExports = [] } = request;
	await using caches =
		services.caches && openBuildCaches(services.caches, job, { cacheImports, cacheExports }, options);
	await using bridge = createBridge(job, services, {
		...options,
		allowed,
		sourcePolicies,
		failedSteps,
		caches,
	});
	const orShowProcess = async (error: unknown): Promise<never> => {
		await showFailedProcess(error, bridge, options);
		throw error;
	};
	const made = await (isGateway(request)
		? clientResult(services, request, { bridge, options })
		: requestedResult(request, { bridge, signal: options.signal })
	).catch(orShowProcess);
	explained?.planned(made);
	const deliver = async (): Promise<Delivered> => {
		const result = await computeResult(made, bridge, options.signal).catch(orShowProcess);
		const keys = await keysOf(made, bridge, options.signal);
		explained?.built(keys.values());
		const inlineCache = caches?.inlineFor((ref) => keys.get(ref));
		const more = request.sessionExporters === true ? await sessionExporters(result, options) : [];
		const responses = await runExporters([...exporters, ...more.map((each) => exporterOf(services, each))], {
			job,
			result,
			warnings: verifyPlatforms(result, request.frontendOptions["platform"]),
			session: options.session,
			...(options.keepDocument === undefined ? {} : { keepDocument: options.keepDocument }),
			...(inlineCache === undefined ? {} : { inlineCache }),
			signal: options.signal,
		});
		return { responses, keys: [...keys.values()] };
	};
	// A damaged layer of an imported cache may be found when an exporter reads it.
	const { responses: exporterResponses, keys } = await bridge.refs.withFiles(deliver, options.signal);
	const exporterResponse: Record<string, string> = Object.assign({}, ...exporterResponses);
	Object.assign(exporterResponse, await caches?.export(keys));
	Object.assign(exporterResponse, await mounts?.export(job));
	const decoder = new TextDecoder();
	for (const [key, value] of Object.entries(made.metadata)) {
		if (key.startsWith("frontend.")) {
			exporterResponse[key] = decoder.decode(value);
		}
	}
	if (request.sessionExporters === true) {
		await options.session.exporters?.finalize(exporterResponse, { signal: options.signal });
	}
	return { exporterResponse, exporterResponses, metadata: made.metadata };
}

async function showFailedProcess(
	error: unknown,
	bridge: JobBridge,
	{ onFailedProcess, signal }: BuildOptions,
): Promise<void> {
	const failed = onFailedProcess === undefined || signal.aborted ? undefined : bridge.failedStep(error);
	const step = failed?.op === undefined ? undefined : fromOpMessage(OpMessage.decode(failed.op));
	if (failed !== undefined && failed.subject === undefined && step?.kind === "exec") {
		await onFailedProcess?.({
			error: toError(error),
			step,
			before: failed.inputs,
			after: failed.mounts,
			newContainer: (request, containerOptions) => bridge.newContainer(request, containerOptions),
		});
	}
}

/** What the client wants to be done with a result that it has seen the metadata of. */
async function sessionExporters(
	{ ref, refs, metadata }: BuildResult,
	{ session, signal }: BuildOptions,
): Promise<readonly ExporterRequest[]> {
	const ids = [ref, ...refs.values()].flatMap((each) => each?.id ?? []);
	return (await session.exporters?.find({ metadata, refs: ids }, { signal })) ?? [];
}

function openMounts(
	{ caches, mounts }: ControllerServices,
	request: Required<Pick<BuildRequest, "cacheMountImports" | "cacheMountExports">>,
	options: BuildOptions,
): BuildMounts | undefined {
	return caches === undefined || mounts === undefined
		? undefined
		: openBuildMounts(
				caches,
				mounts,
				{ mountImports: request.cacheMountImports, mountExports: request.cacheMountExports },
				options,
			);
}

/** The client is the frontend. */
function isGateway({ frontend, definition }: BuildRequest): boolean {
	return isEmpty(frontend) && definition === undefined;
}

function isEmpty(text: string | undefined): boolean {
	return text === undefined || text === "";
}

function exporterOf(services: ControllerServices, { type, attrs }: ExporterRequest): Exporter {
	const factory = services.exporters.get(type);
	if (factory === undefined) {
		throw new SlipwayError("not-found", `exporter ${JSON.stringify(type)} could not be found`);
	}
	return factory(attrs);
}

/** SOURCE_DATE_EPOCH as a build argument is also the exporters', where they have none of their own. */
function withEpoch(
	attrs: ExporterRequest["attrs"],
	frontendOptions: BuildRequest["frontendOptions"],
): ExporterRequest["attrs"] {
	const epoch = frontendOptions["build-arg:SOURCE_DATE_EPOCH"];
	const isEpoch = epoch !== undefined && /^(?:[+-]?\d+)?$/.test(epoch);
	return isEpoch && attrs["source-date-epoch"] === undefined
		? { ...attrs, "source-date-epoch": epoch }
		: attrs;
}

/** What the client asks for and the operator allows; asking for more is an error of its own. */
function grantedEntitlements(services: ControllerServices, request: BuildRequest): ReadonlySet<Entitlement> {
	const refused = request.entitlements.find((each) => {
		const name = entitlementName(each);
		return name === undefined || !services.allowedEntitlements.includes(name);
	});
	if (refused !== undefined) {
		throw new SlipwayError(
			"permission-denied",
			`granting entitlement ${entitlementName(refused) ?? refused} is not allowed by build daemon configuration`,
		);
	}
	return new Set(request.entitlements);
}

interface ResultContext {
	readonly bridge: JobBridge;
	readonly options: BuildOptions;
}

/** The client finds the gateway under the build's ref, and ends by returning a result. */
async function clientResult(
	services: ControllerServices,
	request: BuildRequest,
	{ bridge, options }: ResultContext,
): Promise<FrontendResult> {
	// A third of all messages of the API, which a build by the command line does without.
	const { createGatewayService } = await import("../frontend/gateway/gateway-service.ts");
	await using gateway = createGatewayService(bridge, { inputs: request.frontendInputs });
	using _registered = services.builds.register(request.ref, gateway);
	return await new Promise<FrontendResult>((resolve, reject) => {
		const { signal } = options;
		const abort = (): void => reject(canceled(signal.reason));
		signal.addEventListener("abort", abort, { once: true });
		gateway.returned.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
		if (signal.aborted) {
			abort();
		}
	});
}

const emptyResult: FrontendResult = {
	ref: undefined,
	refs: new Map(),
	metadata: {},
	attestations: new Map(),
};

async function requestedResult(
	request: BuildRequest,
	{ bridge, signal }: { readonly bridge: JobBridge; readonly signal: AbortSignal },
): Promise<FrontendResult> {
	const { definition, cacheImports = [] } = request;
	const { frontend, options } = chooseFrontend(request);
	if (definition !== undefined && definition.ops.length > 0) {
		if (frontend !== "") {
			throw new SlipwayError("unknown", "cannot solve with both Definition and Frontend specified");
		}
		return { ...emptyResult, ref: await bridge.solve(definition, { evaluate: false, signal, cacheImports }) };
	}
	if (frontend === "") {
		return emptyResult;
	}
	return await bridge.solveFrontend(
		{ frontend, options, inputs: request.frontendInputs, evaluate: false },
		{ signal },
	);
}

/** Clients that know nothing of built-in frontends ask the gateway for them. */
function chooseFrontend({ frontend = "", frontendOptions: options }: BuildRequest): {
	readonly frontend: string;
	readonly options: BuildRequest["frontendOptions"];
} {
	const { source, ...rest } = options;
	const isNamed = Object.keys(options).some((key) => /^context:dockerfile\.v0(?:::|$)/.test(key));
	return frontend === "gateway.v0" && source === "dockerfile.v0" && !isNamed
		? { frontend: source, options: rest }
		: { frontend, options };
}

interface Delivered {
	/** Of each exporter. */
	readonly responses: readonly Readonly<Record<string, string>>[];
	/** Of each tree, for caches. */
	readonly keys: readonly (readonly CacheKey[])[];
}

/** All trees, at the same time. */
async function computeResult(
	{ ref, refs, metadata, attestations }: FrontendResult,
	bridge: JobBridge,
	signal: AbortSignal,
): Promise<BuildResult> {
	if (attestations.size > 0) {
		throw new SlipwayError("unimplemented", "attestations of a frontend can't be exported yet");
	}
	const outputOf = async (each: FrontendRef | undefined): Promise<Output> =>
		each === undefined ? undefined : await bridge.refs.output(each, signal);
	const [single, ...byKey] = await Promise.all([outputOf(ref), ...[...refs.values()].map(outputOf)]);
	return {
		ref: single,
		refs: new Map([...refs.keys()].map((key, index) => [key, byKey[index]])),
		metadata,
	};
}

/** The cache keys of the result's trees, for exported caches. */
async function keysOf(
	{ ref, refs }: FrontendResult,
	bridge: JobBridge,
	signal: AbortSignal,
): Promise<ReadonlyMap<ImmutableRef, readonly CacheKey[]>> {
	const keys = new Map<ImmutableRef, readonly CacheKey[]>();
	for (const each of [ref, ...refs.values()]) {
		const built = each === undefined ? undefined : await bridge.refs.built(each, signal);
		if (built?.result !== undefined && built.keys.length > 0) {
			keys.set(built.result, built.keys);
		}
	}
	return keys;
}
