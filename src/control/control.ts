import type { ExporterFactory } from "../exporter/exporter.ts";
import type { Frontend } from "../frontend/frontend.ts";
import type { Definition } from "../llb/llb.ts";
import type { ProgressSink } from "../progress/progress.ts";
import type { Session } from "../session/session.ts";
import type { Solver } from "../solver/solver.ts";
import type { ImageResolver } from "../source/source.ts";
import type { Output, WorkerServices } from "../worker/worker.ts";

/**
 * One build from request to delivered outputs: a job in the solver, a frontend that makes graphs, their results, exporters.
 * `createController` (build.ts) is the whole; both doors of the engine, the in-process one and the gRPC service, call it.
 */
export interface Controller {
	/** Rejects with the error of whatever failed first; by then nothing of this build runs any more. */
	build(request: BuildRequest, options: BuildOptions): Promise<BuildResponse>;
}

export interface BuildRequest {
	/** Unique among the builds that run; `^[a-z0-9]+$`. */
	readonly ref: string;
	/** `dockerfile.v0`, or undefined when `definition` is the graph. */
	readonly frontend: string | undefined;
	readonly frontendOptions: Readonly<Record<string, string>>;
	readonly frontendInputs: ReadonlyMap<string, Definition>;
	readonly definition: Definition | undefined;
	readonly exporters: readonly ExporterRequest[];
	readonly entitlements: readonly Entitlement[];
}

export interface ExporterRequest {
	/** `image`, `oci`, `docker`, `local`, `tar`. */
	readonly type: string;
	readonly attrs: Readonly<Record<string, string>>;
}

/** What a step may only do when both the client and the builder allow it. */
export type Entitlement = "network.host" | "security.insecure" | "device";

export const entitlements: readonly Entitlement[] = ["network.host", "security.insecure", "device"];

export interface BuildOptions {
	readonly session: Session;
	readonly progress: ProgressSink;
	readonly signal: AbortSignal;
}

export interface BuildResponse {
	/** All exporters' responses merged, the last one wins: `containerimage.digest`, `image.name`, …. */
	readonly exporterResponse: Readonly<Record<string, string>>;
	/** Of the frontend; for a request that asks a question (`requestid`), the answer. */
	readonly metadata: Readonly<Record<string, Uint8Array>>;
}

export interface ControllerServices {
	readonly solver: Solver<Output>;
	readonly worker: Pick<WorkerServices, "mountRoot" | "beforeMounts" | "platforms" | "sources">;
	readonly resolver: ImageResolver;
	/** By name. */
	readonly frontends: ReadonlyMap<string, Frontend>;
	/** By type. */
	readonly exporters: ReadonlyMap<string, ExporterFactory>;
	/** What the operator of this builder allows at all. */
	readonly allowedEntitlements: readonly Entitlement[];
}
