import { SlipwayError } from "../errors/errors.ts";
import type { BuildResult, Exporter, PlatformResult } from "../exporter/exporter.ts";
import type { FrontendPlatform, FrontendResult } from "../frontend/frontend.ts";
import type { Definition } from "../llb/llb.ts";
import { load } from "../llb/load.ts";
import { formatPlatformAll } from "../oci/platform.ts";
import type { Job } from "../solver/solver.ts";
import type { Output } from "../worker/worker.ts";
import { createBridge } from "./bridge.ts";
import type {
	BuildOptions,
	BuildRequest,
	BuildResponse,
	Controller,
	ControllerServices,
	Entitlement,
	ExporterRequest,
} from "./control.ts";
import { verticesOf } from "./vertices.ts";

export function createController(services: ControllerServices): Controller {
	return { build: (request, options) => build(services, request, options) };
}

async function build(
	services: ControllerServices,
	request: BuildRequest,
	options: BuildOptions,
): Promise<BuildResponse> {
	const exporters = request.exporters.map((each) => exporterOf(services, each));
	const allowed = grantedEntitlements(services, request);
	await using job = services.solver.openJob({
		id: request.ref,
		progress: options.progress,
		client: options.session,
	});
	await using bridge = createBridge(job, services, { ...options, allowed });
	const made = await runFrontend(services, request, { bridge, options });
	await using held = new AsyncDisposableStack();
	const refs = await Promise.all(
		made.platforms.map((platform) => solvePlatform(job, platform, { allowed, signal: options.signal, held })),
	);
	const result: BuildResult = {
		refs,
		multiPlatform: made.multiPlatform,
		metadata: textMetadata(made.metadata),
	};
	const exporterResponse: Record<string, string> = {};
	if (refs.length > 0) {
		for (const [index, exporter] of exporters.entries()) {
			Object.assign(exporterResponse, await runExporter(job, exporter, { index, result, options }));
		}
	}
	return { exporterResponse, metadata: made.metadata };
}

function exporterOf(services: ControllerServices, { type, attrs }: ExporterRequest): Exporter {
	const factory = services.exporters.get(type);
	if (factory === undefined) {
		throw new SlipwayError("not-found", `exporter ${JSON.stringify(type)} could not be found`);
	}
	return factory(attrs);
}

/** What the client asks for and the operator allows; asking for more is an error of its own. */
function grantedEntitlements(services: ControllerServices, request: BuildRequest): ReadonlySet<Entitlement> {
	const refused = request.entitlements.find((each) => !services.allowedEntitlements.includes(each));
	if (refused !== undefined) {
		throw new SlipwayError(
			"permission-denied",
			`granting entitlement ${refused} is not allowed by build daemon configuration`,
		);
	}
	return new Set(request.entitlements);
}

async function runFrontend(
	services: ControllerServices,
	request: BuildRequest,
	{ bridge, options }: { readonly bridge: ReturnType<typeof createBridge>; readonly options: BuildOptions },
): Promise<FrontendResult> {
	if (request.definition !== undefined) {
		return graphResult(services, request.definition);
	}
	const frontend = services.frontends.get(request.frontend ?? "");
	if (frontend === undefined) {
		throw new SlipwayError("not-found", `frontend ${request.frontend ?? ""} not found`);
	}
	return await frontend.solve(
		{
			options: request.frontendOptions,
			inputs: request.frontendInputs,
			sessionId: options.session.id,
			signal: options.signal,
		},
		bridge,
	);
}

/** A graph without a frontend: a file system without an image config. */
function graphResult(services: ControllerServices, definition: Definition): FrontendResult {
	const [platform] = services.worker.platforms;
	if (platform === undefined) {
		throw new SlipwayError("internal", "the worker has no platform");
	}
	return {
		platforms: [
			{
				id: formatPlatformAll(platform),
				platform,
				definition,
				imageConfig: undefined,
				baseImageConfig: undefined,
			},
		],
		multiPlatform: false,
		metadata: {},
	};
}

async function solvePlatform(
	job: Job<Output>,
	platform: FrontendPlatform,
	{
		allowed,
		signal,
		held,
	}: {
		readonly allowed: ReadonlySet<Entitlement>;
		readonly signal: AbortSignal;
		readonly held: AsyncDisposableStack;
	},
): Promise<PlatformResult> {
	const { definition, ...rest } = platform;
	if (definition === undefined || definition.ops.length === 0) {
		return { ...rest, ref: undefined };
	}
	const built = await job.build(verticesOf(load(definition), allowed), { signal });
	held.defer(() => built.release());
	return { ...rest, ref: built.result };
}

function runExporter(
	job: Job<Output>,
	exporter: Exporter,
	{
		index,
		result,
		options,
	}: { readonly index: number; readonly result: BuildResult; readonly options: BuildOptions },
): Promise<Readonly<Record<string, string>>> {
	const id = index === 0 ? exporter.name : `${exporter.name} ${index}`;
	return job.step({ id, name: exporter.name, signal: options.signal }, (step) =>
		exporter.export(result, { ...step, session: options.session, index }),
	);
}

function textMetadata(metadata: Readonly<Record<string, Uint8Array>>): Readonly<Record<string, string>> {
	const decoder = new TextDecoder();
	return Object.fromEntries(Object.entries(metadata).map(([key, value]) => [key, decoder.decode(value)]));
}
