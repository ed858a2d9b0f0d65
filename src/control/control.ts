import type { SlipwayError } from "../errors/errors.ts";
import type { ExporterFactory } from "../exporter/exporter.ts";
import type {
	FailedStep,
	Frontend,
	FrontendBridge,
	ResolvedSource,
	ResolveSourceRequest,
	SourceIdentity,
	SourcePolicy,
	WorkerIdentity,
} from "../frontend/frontend.ts";
import type { Definition } from "../llb/llb.ts";
import type { ExecOp } from "../llb/op.ts";
import type { Digest } from "../oci/digest.ts";
import type { Platform } from "../oci/platform.ts";
import type { ProgressSink } from "../progress/progress.ts";
import type { RemoteCaches } from "../remotecache/remote-caches.ts";
import type { CacheOptions } from "../remotecache/remotecache.ts";
import type { Session } from "../session/session.ts";
import type { Solver } from "../solver/solver.ts";
import type { ImageResolver } from "../source/source.ts";
import type { ContainerFactory } from "../worker/step-container.ts";
import type { StepTrace } from "../worker/step-trace.ts";
import type { Output, WorkerServices } from "../worker/worker.ts";
import type { MountServices } from "./build-mounts.ts";
import type { BuildRegistry } from "./build-registry.ts";
import type { Explainer, Explanation } from "./explain.ts";

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
	/**
	 * `dockerfile.v0`, `gateway.v0`; undefined or empty when `definition` is the graph. With neither, the client is the frontend
	 * itself: it finds the build under its ref in the `BuildRegistry` and says there what the result is.
	 */
	readonly frontend: string | undefined;
	readonly frontendOptions: Readonly<Record<string, string>>;
	readonly frontendInputs: ReadonlyMap<string, Definition>;
	readonly definition: Definition | undefined;
	readonly exporters: readonly ExporterRequest[];
	readonly entitlements: readonly Entitlement[];
	/** Caches that `definition` is looked up in. Frontends have theirs in their options. */
	readonly cacheImports?: readonly CacheOptions[];
	readonly cacheExports?: readonly CacheOptions[];
	/** Where cache mounts that are not here come from, and where those that were used go when the build is done. */
	readonly cacheMountImports?: readonly CacheOptions[];
	readonly cacheMountExports?: readonly CacheOptions[];
	readonly sourcePolicies?: readonly SourcePolicy[];
	/** The session may name more exporters when it has seen the result. */
	readonly sessionExporters?: boolean;
}

export interface ExporterRequest {
	/** `image`, `oci`, `docker`, `local`, `tar`. */
	readonly type: string;
	readonly attrs: Readonly<Record<string, string>>;
}

/** What a step may only do when both the client and the builder allow it. */
export type Entitlement = EntitlementName | DeviceEntitlement;

/** What the operator of a builder allows; `device` is any of the machine's devices. */
export type EntitlementName = "network.host" | "security.insecure" | "device";

/** `device=name[,alias=other]`: a client names single devices, see `parseEntitlement`. */
export type DeviceEntitlement = `device=${string}`;

export const entitlements: readonly EntitlementName[] = ["network.host", "security.insecure", "device"];

export interface BuildOptions {
	readonly session: Session;
	readonly progress: ProgressSink;
	readonly signal: AbortSignal;
	/** Asked about every source, after the policies. */
	readonly sourceVerifier?: SourceVerifier;
	/** Gets the documents of images that exporters make: manifests, configs. */
	readonly keepDocument?: (digest: Digest, document: Uint8Array) => void;
	/** Called with a process that failed, before the build ends with its error: what it left can be looked at until it resolves. */
	readonly onFailedProcess?: (failed: FailedProcess) => Promise<void>;
	/** Lets programs of steps add to the trace of the build. */
	readonly trace?: StepTrace;
	/** Told at the end why steps ran, also of a build that failed. */
	readonly explain?: (explanation: Explanation) => void;
}

/** A step of a process that failed, as it was. By number of its mounts: their trees before the process, and when it ended. */
export interface FailedProcess {
	readonly error: SlipwayError;
	readonly step: ExecOp;
	readonly before: FailedStep["inputs"];
	readonly after: FailedStep["mounts"];
	readonly newContainer: FrontendBridge["newContainer"];
}

/** A client that decides about sources while its build runs (`PolicyVerifier` of its session). */
export interface SourceVerifier {
	check(request: SourceCheck, options: { readonly signal: AbortSignal }): Promise<SourceVerdict>;
}

export interface SourceCheck {
	readonly platform: Platform | undefined;
	readonly source: ResolvedSource;
}

export type SourceVerdict =
	| { readonly kind: "allow" }
	| { readonly kind: "deny"; readonly action: string; readonly messages: readonly string[] }
	| { readonly kind: "convert"; readonly update: SourceIdentity | undefined }
	/** It wants to know more first. */
	| { readonly kind: "resolve"; readonly request: ResolveSourceRequest };

export interface BuildResponse {
	/** All exporters' responses merged, the last one wins: `containerimage.digest`, `image.name`, …. */
	readonly exporterResponse: Readonly<Record<string, string>>;
	/** What each exporter answered, in order. */
	readonly exporterResponses?: readonly Readonly<Record<string, string>>[];
	/** Of the frontend; for a request that asks a question (`requestid`), the answer. */
	readonly metadata: Readonly<Record<string, Uint8Array>>;
}

export interface ControllerServices {
	readonly solver: Solver<Output>;
	readonly worker: Pick<
		WorkerServices,
		"mountRoot" | "beforeMounts" | "platforms" | "searchPath" | "sources" | "devices"
	>;
	readonly workerIdentity: WorkerIdentity;
	readonly resolver: ImageResolver;
	readonly containers: ContainerFactory;
	/** By name. */
	readonly frontends: ReadonlyMap<string, Frontend>;
	/** By type. */
	readonly exporters: ReadonlyMap<string, ExporterFactory>;
	/** What the operator of this builder allows at all. */
	readonly allowedEntitlements: readonly Entitlement[];
	/** Where clients that are frontends find their builds. */
	readonly builds: BuildRegistry;
	/** Caches that are imported and exported; without it there are none. */
	readonly caches?: RemoteCaches;
	/** For cache mounts that travel; without it they stay. */
	readonly mounts?: MountServices;
	/** Keeps what builds were made of; without it nothing is explained. */
	readonly explainer?: Explainer;
}
