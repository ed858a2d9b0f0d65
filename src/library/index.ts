// biome-ignore-all lint/performance/noBarrelFile: an entry of the package is what others import from.
/** `import … from "slipway"`. */
import type { Client, SolveRequest, SolveResponse } from "../client/client.ts";
import type { TlsFiles } from "../client/dial.ts";
import { canceled, SlipwayError, toError } from "../errors/errors.ts";
import { newIdentity } from "../oci/identity.ts";
import type { ProgressSink } from "../progress/progress.ts";
import type { LocalSessionOptions } from "../session/local-session.ts";
import { EventQueue } from "./event-queue.ts";
import type { Build, Builder, BuildResult } from "./library.ts";
import { prepareBuild } from "./solve-request.ts";

export type {
	BuilderInfo,
	BuilderVersion,
	GcPolicy,
	HistoryEvent,
	HistoryRecord,
	HistoryRequest,
	PruneRequest,
	UsageRecord,
	WorkerInfo,
} from "../client/client.ts";
export type { TlsFiles } from "../client/dial.ts";
export {
	type ErrorCode,
	type ErrorDetail,
	findDetail,
	hasCode,
	type Position,
	SlipwayError,
	type SourceFile,
	type SourceRange,
} from "../errors/errors.ts";
export type { Descriptor } from "../oci/descriptor.ts";
export type { Digest } from "../oci/digest.ts";
export type { Platform } from "../oci/platform.ts";
export type {
	LogRecord,
	ProgressEvent,
	StatusRecord,
	VertexRecord,
	WarningRecord,
} from "../progress/progress.ts";
export type { RegistryCredentials } from "../session/session.ts";
export type * from "./library.ts";

export interface ConnectOptions {
	/** For `tcp://`. */
	readonly tls?: TlsFiles;
	/** How long connecting may take; default 5 s. */
	readonly timeoutMs?: number;
	readonly signal?: AbortSignal;
}

/** A builder at BuildKit's addresses: `unix:///run/slipway/slipwayd.sock`, `tcp://host:1234`, `docker-container://name`, …. */
export async function connect(address: string, options: ConnectOptions = {}): Promise<Builder> {
	const { connectClient } = await import("../client/connect.ts");
	const timeout = AbortSignal.timeout(options.timeoutMs ?? 5000);
	const client = await connectClient(address, {
		env: process.env,
		signal: options.signal === undefined ? timeout : AbortSignal.any([options.signal, timeout]),
		...(options.tls === undefined ? {} : { tls: options.tls }),
	});
	return builderOf(client, (request, { lends, progress, signal }) =>
		client.solve(request, { lends, progress, signal }),
	);
}

export interface CreateEngineOptions {
	/** State directory; one engine at a time has it. Default `/var/lib/slipway`, for a user `~/.local/share/slipway`. */
	readonly root?: string;
	/** Default `auto`: overlayfs where it works. */
	readonly snapshotter?: "auto" | "overlayfs" | "native";
	/** OCI runtime; default crun, else runc, from `PATH`. */
	readonly runtime?: string;
	/** Told what was damaged and worked around; default: written to standard error. */
	readonly onWarning?: (message: string) => void;
}

/** A builder in this process. */
export async function createEngine(options: CreateEngineOptions = {}): Promise<Builder> {
	const { embedEngine } = await import("./embedded.ts");
	const { client, solve, close } = await embedEngine(options);
	return builderOf(client, solve, close);
}

/** How a build is run; the rest of a builder is the same for all. */
export type Solve = (
	request: SolveRequest,
	options: {
		readonly lends: LocalSessionOptions;
		readonly progress: ProgressSink;
		readonly signal: AbortSignal;
	},
) => Promise<SolveResponse>;

const never = new AbortController().signal;

function builderOf(
	client: Client,
	solve: Solve,
	close: () => PromiseLike<void> = () => client[Symbol.asyncDispose](),
): Builder {
	let isClosed = false;
	return {
		build(options): Build {
			const ref = newIdentity();
			const events = new EventQueue();
			const { signal = never } = options;
			const run = async (): Promise<BuildResult> => {
				if (isClosed) {
					events.end();
					throw new SlipwayError("failed-precondition", "the builder is closed");
				}
				try {
					await using prepared = await prepareBuild(ref, options);
					const { request, lends } = prepared;
					const { exporterResponse, metadata } = await solve(request, { lends, progress: events, signal });
					return {
						digest: exporterResponse["containerimage.digest"],
						configDigest: exporterResponse["containerimage.config.digest"],
						exporterResponse,
						metadata,
					};
				} catch (error) {
					if (signal.aborted) {
						throw abortError(signal, error);
					}
					throw isClosed ? canceled(error) : toError(error);
				} finally {
					events.end();
				}
			};
			const result = run();
			result.catch(() => {});
			return { ref, result, [Symbol.asyncIterator]: () => events[Symbol.asyncIterator]() };
		},
		info: ({ signal = never } = {}) => client.info({ signal }),
		workers: ({ signal = never } = {}) => client.workers([], { signal }),
		diskUsage: ({ filters = [], signal = never } = {}) => client.diskUsage(filters, { signal }),
		prune: ({ signal = never, ...request } = {}) => client.prune(request, { signal }),
		history: ({ signal = never, ...request } = {}) => client.history(request, { signal }),
		[Symbol.asyncDispose]: () => {
			isClosed = true;
			return close();
		},
	};
}

/** A build's error when its signal was aborted: whatever the reason of the program is, `hasCode` tells it by the code. */
function abortError(signal: AbortSignal, cause: unknown): SlipwayError {
	const reason: unknown = signal.reason;
	if (reason instanceof SlipwayError) {
		return reason;
	}
	return reason instanceof Error && reason.name === "TimeoutError"
		? new SlipwayError("deadline-exceeded", "context deadline exceeded", { cause: reason })
		: canceled(reason ?? cause);
}
