import type { FrontendBridge, FrontendRef } from "../frontend/frontend.ts";
import { load } from "../llb/load.ts";
import type { BuiltEdge, Edge, Job } from "../solver/solver.ts";
import { createRefReader } from "../worker/ref-reader.ts";
import type { Output } from "../worker/worker.ts";
import type { BuildOptions, ControllerServices, Entitlement } from "./control.ts";
import { verticesOf } from "./vertices.ts";

/** What a frontend may ask of a build, in terms of its job. Results that it looked at stay until the bridge is disposed. */
export interface JobBridge extends FrontendBridge, AsyncDisposable {}

export function createBridge(
	job: Job<Output>,
	services: ControllerServices,
	options: BuildOptions & { readonly allowed: ReadonlySet<Entitlement> },
): JobBridge {
	const results: Promise<BuiltEdge<Output>>[] = [];

	function refOf(
		edge: Edge | undefined,
	): FrontendRef & { readonly evaluate: (signal: AbortSignal) => Promise<Output> } {
		let built: Promise<BuiltEdge<Output>> | undefined;
		const evaluate = async (signal: AbortSignal): Promise<Output> => {
			if (edge === undefined) {
				return undefined;
			}
			if (built === undefined) {
				built = job.build(edge, { signal });
				results.push(built);
			}
			return (await built).result;
		};
		return { evaluate, ...createRefReader(evaluate, services.worker) };
	}

	return {
		platforms: services.worker.platforms,
		async solve(definition, { evaluate, signal }) {
			const edge = definition.ops.length === 0 ? undefined : verticesOf(load(definition), options.allowed);
			const ref = refOf(edge);
			if (evaluate) {
				await ref.evaluate(signal);
			}
			return ref;
		},
		resolveImage: (request, { signal }) =>
			job.step({ id: request.logName, name: request.logName, signal }, (step) =>
				services.resolver.resolve(
					{
						ref: request.ref,
						platform: request.platform,
						mode: request.mode,
						sessions: () => [options.session],
						...(request.ociLayout === undefined ? {} : { store: request.ociLayout }),
					},
					step,
				),
			),
		sourceTime: ({ identifier, attrs, logName }, { signal }) =>
			job.step({ id: logName, name: logName, signal }, async (step) => {
				const source = services.worker.sources.get(identifier.slice(0, identifier.indexOf("://")));
				const instance = source?.open({
					identifier,
					attrs: Object.fromEntries(attrs),
					platform: undefined,
					sessions: () => [options.session],
				});
				return instance?.modified?.(step);
			}),
		warn(warning) {
			options.progress.write({ kind: "warning", warning });
		},
		async [Symbol.asyncDispose]() {
			for (const result of await Promise.allSettled(results)) {
				if (result.status === "fulfilled") {
					await result.value.release();
				}
			}
		},
	};
}
