import { SlipwayError, wrap } from "../errors/errors.ts";
import { errorDetails } from "../frontend/error-details.ts";
import type {
	FrontendBridge,
	FrontendResult,
	ResolvedSource,
	ResolveSourceRequest,
	SolveFrontendRequest,
	SourceIdentity,
	SourcePolicy,
} from "../frontend/frontend.ts";
import type { Platform } from "../oci/platform.ts";
import type { Job } from "../solver/solver.ts";
import { askHostKey } from "../source/host-key.ts";
import type { Output } from "../worker/worker.ts";
import type { BuildCaches } from "./build-caches.ts";
import type { BuildOptions, ControllerServices, Entitlement } from "./control.ts";
import type { FailedSteps } from "./failed-steps.ts";
import { judgeSource } from "./judge-source.ts";
import { loadGraph } from "./load-graph.ts";
import { type BuildRefs, createBuildRefs } from "./refs.ts";
import { openSource, resolveSource } from "./resolve-source.ts";
import { createPolicyEngine } from "./source-policy.ts";

/** What a frontend may ask of a build, in terms of its job. What it made stays until it is disposed. */
export interface JobBridge extends FrontendBridge, AsyncDisposable {
	readonly refs: BuildRefs;
}

export interface BridgeOptions extends BuildOptions {
	readonly allowed: ReadonlySet<Entitlement>;
	readonly sourcePolicies: readonly SourcePolicy[];
	readonly failedSteps: FailedSteps;
	/** Undefined where there are none. */
	readonly caches: BuildCaches | undefined;
}

export function createBridge(
	job: Job<Output>,
	services: ControllerServices,
	options: BridgeOptions,
): JobBridge {
	const { session, sourceVerifier: verifier, allowed } = options;
	const refs = createBuildRefs(job, services.worker, (error) => options.caches?.dropLost(error) ?? false);
	const containers = new AsyncDisposableStack();

	const lookUp = (request: ResolveSourceRequest, signal: AbortSignal): Promise<ResolvedSource> =>
		resolveSource(request, { job, services, session, signal });

	/** Undefined where nobody wants to be asked. */
	function judgeWith(
		more: readonly SourcePolicy[],
		signal: AbortSignal,
	): ((source: SourceIdentity, platform: Platform | undefined) => Promise<SourceIdentity>) | undefined {
		const policies = [...options.sourcePolicies, ...more];
		if (policies.length === 0 && verifier === undefined) {
			return undefined;
		}
		return (source, platform) =>
			judgeSource(source, platform, {
				policies,
				verifier,
				resolve: async (request) =>
					await lookUp({ ...request, source: policiesOnly(request.source, policies) }, signal),
				signal,
			});
	}

	async function judged(
		{ source, platform, sourcePolicies = [] }: ResolveSourceRequest,
		signal: AbortSignal,
	): Promise<SourceIdentity> {
		try {
			return (await judgeWith(sourcePolicies, signal)?.(source, platform)) ?? source;
		} catch (error) {
			throw wrap(error, "could not resolve image due to policy");
		}
	}

	const bridge: JobBridge = {
		refs,
		platforms: services.worker.platforms,
		worker: services.workerIdentity,
		async solve(definition, { evaluate, signal, cacheImports = [], sourcePolicies = [] }) {
			const ref = refs.make(definition, async (now) =>
				definition.ops.length === 0
					? undefined
					: {
							edge: await loadGraph(definition, {
								allowed,
								devices: services.worker.devices,
								judge: judgeWith(sourcePolicies, now),
							}),
							sources: (await options.caches?.sources(cacheImports)) ?? [],
						},
			);
			if (evaluate) {
				await ref.evaluate({ signal });
			}
			return ref;
		},
		solveFrontend: (request, { signal }) => solveFrontend(bridge, request, { services, session, signal }),
		async resolveImage(request, { signal }) {
			const { ref, platform, mode, logName, ociLayout, sourcePolicies = [] } = request;
			const source = imageIdentity(ref, ociLayout);
			const now = await judged({ source, platform, mode, sourcePolicies }, signal);
			const { image } = await lookUp({ source: now, platform, mode, logName }, signal);
			if (image?.config === undefined) {
				throw new SlipwayError("unknown", `ref mutated by policy to non-image: ${now.identifier}`);
			}
			const name = now.identifier.slice(now.identifier.indexOf("://") + 3);
			return { ref: name, digest: image.digest, config: image.config };
		},
		resolveSource: async (request, { signal }) =>
			await lookUp({ ...request, source: await judged(request, signal) }, signal),
		sourceTime: ({ logName, ...source }, { signal }) =>
			job.step({ id: logName, name: logName, signal }, async (step) =>
				openSource(source, { services, session }).modified?.(step),
			),
		hostKey: (host, { signal }) => askHostKey(host, { searchPath: services.worker.searchPath, signal }),
		warn(warning) {
			options.progress.write({ kind: "warning", warning });
		},
		async newContainer(request, { signal }) {
			const trees = request.mounts.map((mount) => ("ref" in mount ? mount.ref : undefined));
			const container = await refs.withFiles(
				async () =>
					services.containers(request, {
						outputs: await Promise.all(trees.map((ref) => ref && refs.output(ref, signal))),
						session,
						signal,
						allowsHostNetwork: allowed.has("network.host"),
						allowsInsecure: allowed.has("security.insecure"),
					}),
				signal,
			);
			return containers.use(container);
		},
		failedStep: (error) => options.failedSteps.find(error, refs),
		async [Symbol.asyncDispose]() {
			await containers.disposeAsync();
			await refs[Symbol.asyncDispose]();
		},
	};
	return bridge;
}

function policiesOnly(source: SourceIdentity, policies: readonly SourcePolicy[]): SourceIdentity {
	return createPolicyEngine(policies).evaluate(source);
}

/** The answer of a frontend, with who it was if it is an error. */
async function solveFrontend(
	bridge: FrontendBridge,
	{ frontend: name, options, inputs, evaluate }: SolveFrontendRequest,
	{
		services,
		session,
		signal,
	}: Pick<BuildOptions, "session" | "signal"> & { readonly services: ControllerServices },
): Promise<FrontendResult> {
	const frontend = services.frontends.get(name);
	if (frontend === undefined) {
		throw new SlipwayError("unknown", `invalid frontend: ${name}`);
	}
	let result: FrontendResult;
	try {
		result = await frontend.solve({ options, inputs, sessionId: session.id, signal }, bridge);
	} catch (error) {
		throw wrap(error, "", {
			details: [errorDetails.frontend({ name, source: options["source"] ?? "" })],
		});
	}
	if (evaluate) {
		await Promise.all([result.ref, ...result.refs.values()].map((ref) => ref?.evaluate({ signal })));
	}
	return result;
}

function imageIdentity(
	ref: string,
	layout: { readonly sessionId: string | undefined; readonly storeId: string } | undefined,
): SourceIdentity {
	return layout === undefined
		? { identifier: `docker-image://${ref}`, attrs: new Map() }
		: {
				identifier: `oci-layout://${ref}`,
				attrs: new Map([
					["oci.store", layout.storeId],
					...(layout.sessionId === undefined ? [] : ([["oci.session", layout.sessionId]] as const)),
				]),
			};
}
