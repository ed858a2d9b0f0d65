import type { MessageStream, Method, MethodKind, ServedMethod, ServerCall } from "../api/grpc.ts";
import type { BytesMessage, TunnelMessage } from "../api/services/bytes-message.ts";
import type { Tracing } from "../api/tracing.ts";
import type { CacheManager } from "../cache/cache.ts";
import type { ContentStore, LocalContent } from "../content/content.ts";
import type { SlipwayError } from "../errors/errors.ts";
import type { Platform } from "../oci/platform.ts";
import type { Session } from "../session/session.ts";
import type { Controller } from "./control.ts";
import type { History } from "./history.ts";
import type { BuildLogSummary } from "./service-log.ts";

/**
 * What a builder does for its clients, as BuildKit's API has it: builds, their progress and their history, sessions, the cache, the
 * workers. `createControlService` (service-methods.ts) puts it together: one file per concern, each a few functions from messages
 * to messages. Nothing of a client's message is ignored in silence; what a method does not know is an error of the call.
 */
export interface ControlService extends AsyncDisposable {
	readonly methods: readonly ServedMethod[];
	/** A build whose client is in this process. */
	readonly build: Controller["build"];
	/** Builds that run. */
	readonly running: number;
	/** Called whenever a build begins or ends. */
	onChange(listener: () => void): void;
	/** The builder will stop: listeners of the history end with the last build. */
	drain(): void;
	/** Ends all builds with `canceled`. */
	cancelAll(reason: string): void;
}

export interface ControlServiceOptions {
	readonly controller: Controller;
	readonly history: History;
	readonly content: ContentStore & LocalContent;
	readonly cache: CacheManager;
	readonly openSession: OpenSession;
	readonly worker: WorkerDescription;
	readonly version: BuilderVersion;
	/** Called when a build has ended, for garbage collection. */
	readonly onBuildEnd: () => void;
	/** Where spans of builds go. Default: there are none. */
	readonly tracing?: Tracing;
	/** Where programs of steps find this process's collector of spans. Default: they have none. */
	readonly traceSocket?: string | undefined;
	/** Told of each build that the history has, when it has ended. */
	readonly onRecorded?: (build: BuildFigures) => void;
	/** Size and free space of the disk that the cache is on. */
	readonly disk: () => { readonly totalBytes: number; readonly freeBytes: number };
}

/** Times are milliseconds since the epoch. */
export interface BuildFigures extends BuildLogSummary {
	readonly startedMs: number;
	readonly endedMs: number;
	readonly error: SlipwayError | undefined;
}

/** The client's side of a session, through its call; it is over when `closed` is aborted. */
export type OpenSession = (
	stream: MessageStream<TunnelMessage, BytesMessage>,
	call: ServerCall,
) => Promise<Session & AsyncDisposable>;

export interface WorkerDescription {
	readonly id: string;
	readonly labels: ReadonlyMap<string, string>;
	/** Now; natively first. */
	readonly platforms: () => readonly Platform[];
	readonly gcPolicy: readonly GcRule[];
	/** Now. */
	readonly devices: () => readonly DeviceDescription[];
}

export interface DeviceDescription {
	readonly name: string;
	readonly annotations: Readonly<Record<string, string>>;
	/** Builds may use it unasked. */
	readonly autoAllowed: boolean;
}

/** What garbage collection deletes; 0 is no limit. */
export interface GcRule {
	readonly all: boolean;
	/** containerd's filters, one of which must match. */
	readonly filters: readonly string[];
	readonly keepDurationMs: number;
	readonly reservedBytes: number;
	readonly maxUsedBytes: number;
	readonly minFreeBytes: number;
}

export interface BuilderVersion {
	readonly package: string;
	readonly version: string;
	readonly revision: string;
	readonly dockerfileVersion: string;
}

/** A method whose answers were encoded before. */
export function withEncodedAnswers<Kind extends MethodKind, Request, Response>(
	method: Method<Kind, Request, Response>,
): Method<Kind, Request, Uint8Array> {
	return {
		kind: method.kind,
		path: method.path,
		request: method.request,
		response: { encode: (bytes) => ({ finish: () => bytes }), decode: (bytes) => bytes },
	};
}
