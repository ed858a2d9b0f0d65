import type { Archiver } from "../archive/archive.ts";
import type { ThreadPool } from "../async/pool.ts";
import type { CacheManager, ImmutableRef, MutableRef } from "../cache/cache.ts";
import type { Executor } from "../executor/executor.ts";
import type { FailedPart } from "../frontend/frontend.ts";
import type { Definition, LoadedOp } from "../llb/llb.ts";
import type { Digest } from "../oci/digest.ts";
import type { Platform } from "../oci/platform.ts";
import type { Session } from "../session/session.ts";
import type { Edge, StepContext, Vertex } from "../solver/solver.ts";
import type { Source } from "../source/source.ts";
import type { DeviceRegistry } from "./cdi-devices.ts";
import type { StepLimits } from "./step-limits.ts";
import type { StepTrace } from "./step-trace.ts";

/**
 * The worker turns ops of the build graph into work: `createOpResolver` (op-resolver.ts) gives the solver an `Op` for each
 * vertex. A result is a cache ref; undefined is the empty tree.
 */
export type Output = ImmutableRef | undefined;

/** What ops are made with. */
export interface WorkerServices {
	readonly cache: CacheManager;
	readonly executor: Executor;
	/** By scheme. */
	readonly sources: ReadonlyMap<string, Source>;
	readonly pool: ThreadPool;
	readonly archiver: Archiver;
	/** Where trees are mounted for file operations; of our own, on any file system. */
	readonly mountRoot: string;
	/** Called before the first mount of this thread, see `OciExecutorOptions`. */
	readonly beforeMounts: () => void;
	/** What the machine runs without emulation is first. */
	readonly platforms: readonly Platform[];
	/** Where emulators of other platforms are looked for, as in `PATH`. */
	readonly searchPath: string;
	readonly logLimits: LogLimits;
	readonly devices: DeviceRegistry;
}

/** How much of a step's output is kept, for each of its two streams; -1 is no limit. */
export interface LogLimits {
	readonly maxBytes: number;
	readonly maxBytesPerSecond: number;
}

/** BuildKit's: `BUILDKIT_STEP_LOG_MAX_SIZE` and `BUILDKIT_STEP_LOG_MAX_SPEED`. */
export const defaultLogLimits: LogLimits = { maxBytes: 2 * 1024 * 1024, maxBytesPerSecond: 200 * 1024 };

/** What a vertex of ours carries for the solver to hand back. */
export interface VertexPayload {
	readonly op: LoadedOp;
	/** Of an op that builds: the graph of a definition, by the rules of the same build. */
	readonly loadNested?: (definition: Definition) => Promise<Edge>;
}

/** Whom a job of ours works for. */
export interface JobClient {
	readonly session: Session;
	/** Wants what a step that fails leaves behind, and releases it. */
	readonly keepFailed?: (step: FailedStepState) => void;
	readonly limits?: StepLimits;
	/** Told what a step has made by running; who wants to keep it clones it at once. */
	readonly onOutputs?: (vertex: Vertex, outputs: readonly Output[]) => void;
	readonly travellingMounts?: TravellingMounts;
	/** Lets programs of steps add to the trace of the build. */
	readonly trace?: StepTrace;
}

/** Cache mounts of a build that come from elsewhere and go there. */
export interface TravellingMounts {
	/** A step uses it. */
	used(mount: MountIdentity): void;
	/** Fills one that was not here. False if it failed half-way. */
	fill(mount: MountIdentity, ref: MutableRef, context: StepContext): Promise<boolean>;
}

export interface MountIdentity {
	readonly id: string;
	/** What it begins with. */
	readonly base: ImmutableRef | undefined;
}

/** The trees of a step that failed; undefined where there is none. Whoever has it releases them. */
export interface FailedStepState {
	readonly vertex: Digest;
	readonly op: LoadedOp;
	/** What of the op failed; undefined is the process of an exec. */
	readonly subject?: FailedPart;
	/** Of a process one for each mount, what it was made of; of an action the op's inputs; of content the input that was read. */
	readonly inputs: readonly Output[];
	/** Of a process one for each mount, what it was at the end; of an action one for each action, what the failed one left. */
	readonly mounts: readonly Output[];
}

export function clientsOf(context: StepContext): readonly JobClient[] {
	return context.clients() as readonly JobClient[];
}

/** Sessions of the builds that want the vertex, the one that asked first in front. */
export function sessionsOf(context: StepContext): readonly Session[] {
	return clientsOf(context).map(({ session }) => session);
}
