import {
	type BuildHistoryRecord,
	type Descriptor,
	emptyBuildHistoryRecord,
	type SolveRequest,
	type SolveResponse,
} from "../api/generated/control.ts";
import type { ServerCall } from "../api/grpc.ts";
import { timestampOf } from "../api/timestamps.ts";
import { parentSpan, type SpanContext } from "../api/trace-context.ts";
import { canceled, type SlipwayError, toError } from "../errors/errors.ts";
import { wireError } from "../frontend/wire-error.ts";
import type { Digest } from "../oci/digest.ts";
import { type ProgressSink, progressTime } from "../progress/progress.ts";
import type { Session } from "../session/session.ts";
import { traceBuild } from "./build-trace.ts";
import type { BuildOptions, BuildRequest, BuildResponse } from "./control.ts";
import { recordedAttributes } from "./recorded-attributes.ts";
import type { ControlServiceOptions } from "./service.ts";
import { warnOfBuild } from "./service-attestations.ts";
import type { Builds, OpenBuild } from "./service-builds.ts";
import { noSession } from "./service-no-session.ts";
import { sessionVerifier } from "./service-policy.ts";
import type { SessionRegistry } from "./service-sessions.ts";
import { readSolveRequest, type SolveOrder } from "./service-solve-request.ts";

export interface SolveServices extends ControlServiceOptions {
	readonly builds: Builds;
	readonly sessions: SessionRegistry;
}

/** One build, until its outputs are delivered. It ends with the call, with its session, and when the builder stops. */
export async function solve(
	services: SolveServices,
	message: SolveRequest,
	call: ServerCall,
): Promise<SolveResponse> {
	const order = readSolveRequest(message);
	using build = services.builds.open(order.request.ref, { store: services.history.blobs });
	try {
		const run = (watch: BuildWatch): Promise<BuildResponse> =>
			runForClient(services, order, { build, call, watch });
		const response = order.internal
			? await run({ progress: build.log })
			: await recorded(services, order.request, { build, parent: parentSpan(call.metadata), run });
		return { ExporterResponse: new Map(Object.entries(response.exporterResponse)) };
	} finally {
		services.onBuildEnd();
	}
}

/** A build whose client is in this process: shown and kept as those of others are. */
export async function buildHere(
	services: SolveServices,
	request: BuildRequest,
	{ progress, signal, ...options }: BuildOptions,
): Promise<BuildResponse> {
	using build = services.builds.open(request.ref, { store: services.history.blobs });
	const run = (watch: BuildWatch): Promise<BuildResponse> =>
		services.controller.build(request, {
			...options,
			...watch,
			progress: both(progress, watch.progress),
			signal: AbortSignal.any([signal, build.signal]),
		});
	try {
		return await recorded(services, request, { build, parent: undefined, run });
	} finally {
		services.onBuildEnd();
	}
}

interface SolveCall {
	readonly build: OpenBuild;
	readonly call: ServerCall;
	readonly watch: BuildWatch;
}

/** What the history wants to see of a build. */
type BuildWatch = Pick<BuildOptions, "progress" | "keepDocument" | "trace">;

interface RecordedBuild {
	readonly build: OpenBuild;
	/** The client's span. */
	readonly parent: SpanContext | undefined;
	readonly run: (watch: BuildWatch) => Promise<BuildResponse>;
}

function both(first: ProgressSink, second: ProgressSink): ProgressSink {
	return {
		write(event) {
			first.write(event);
			second.write(event);
		},
	};
}

async function recorded(
	services: SolveServices,
	request: BuildRequest,
	{ build, parent, run }: RecordedBuild,
): Promise<BuildResponse> {
	const startedMs = progressTime();
	const { ref } = request;
	const trace = services.tracing && traceBuild(services.tracing, { parent, ref });
	const active = services.history.start(recordOf(request));
	const documents = new Map<Digest, Uint8Array>();
	let response: BuildResponse | undefined;
	let error: SlipwayError | undefined;
	try {
		response = await run({
			progress: trace === undefined ? build.log : both(build.log, trace),
			...(trace === undefined || services.traceSocket === undefined
				? {}
				: { trace: { socketPath: services.traceSocket, environment: trace.environment } }),
			keepDocument: (digest, document) => void documents.set(digest, document),
		});
		return response;
	} catch (thrown) {
		error = toError(thrown);
		throw error;
	} finally {
		build.log.end();
		const endedMs = progressTime();
		trace?.end(error?.message);
		void active
			.complete({
				error,
				log: build.log,
				metadata: textOf(response?.metadata ?? {}),
				results: resultsOf(response),
				documents,
			})
			.then(() => {
				services.onRecorded?.({ startedMs, endedMs, error, ...build.log.summary() });
			});
		if (trace !== undefined) {
			services.history.keepTrace(ref, () => trace.take());
		}
	}
}

async function runForClient(
	services: SolveServices,
	{ request, sessionId, policySessionId, warning }: SolveOrder,
	{ build, call, watch }: SolveCall,
): Promise<BuildResponse> {
	const waiting = AbortSignal.any([call.signal, build.signal]);
	const session = sessionId === "" ? noSession : await services.sessions.find(sessionId, { signal: waiting });
	const verifier =
		policySessionId === ""
			? undefined
			: sessionVerifier(await services.sessions.find(policySessionId, { signal: waiting }));
	const signal = AbortSignal.any([waiting, session.closed]);
	if (warning !== undefined) {
		warnOfBuild(watch.progress, warning);
	}
	try {
		return await services.controller.build(request, {
			...watch,
			session,
			signal,
			...(verifier === undefined ? {} : { sourceVerifier: verifier }),
		});
	} catch (thrown) {
		throw explain(thrown, { session, build, call });
	}
}

/** What is told of a build that was ended from outside is why, not where it was at that moment. */
function explain(
	thrown: unknown,
	{ session, build, call }: Omit<SolveCall, "watch"> & { readonly session: Session },
): SlipwayError {
	const error = toError(thrown);
	if (build.signal.aborted || session.closed.aborted || call.signal.aborted) {
		return canceled(thrown);
	}
	return wireError(error);
}

function recordOf({ ref, frontend, frontendOptions, exporters }: BuildRequest): BuildHistoryRecord {
	return {
		...emptyBuildHistoryRecord(),
		Ref: ref,
		Frontend: frontend ?? "",
		FrontendAttrs: recordedAttributes(frontendOptions),
		Exporters: exporters.map(({ type, attrs }) => ({ Type: type, Attrs: new Map(Object.entries(attrs)) })),
		CreatedAt: timestampOf(progressTime()),
	};
}

function textOf(metadata: Readonly<Record<string, Uint8Array>>): ReadonlyMap<string, string> {
	const decoder = new TextDecoder();
	return new Map(Object.entries(metadata).map(([key, value]) => [key, decoder.decode(value)]));
}

/** What exporters of images say that they made, by their number. */
function resultsOf(response: BuildResponse | undefined): ReadonlyMap<number, Descriptor> {
	const results = new Map<number, Descriptor>();
	for (const [index, answers] of (response?.exporterResponses ?? []).entries()) {
		const encoded = answers["containerimage.descriptor"];
		if (encoded !== undefined) {
			results.set(index, readDescriptor(Buffer.from(encoded, "base64").toString()));
		}
	}
	return results;
}

/** Of our own exporters. */
function readDescriptor(json: string): Descriptor {
	const { mediaType, digest, size, annotations } = JSON.parse(json) as {
		readonly mediaType: string;
		readonly digest: string;
		readonly size: number;
		readonly annotations?: Readonly<Record<string, string>>;
	};
	return { mediaType, digest, size, annotations: new Map(Object.entries(annotations ?? {})) };
}
