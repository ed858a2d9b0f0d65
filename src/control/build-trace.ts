import { childOf, type SpanContext, traceMetadata } from "../api/trace-context.ts";
import { traceJson } from "../api/trace-json.ts";
import type { KnownSpan, Tracing } from "../api/tracing.ts";
import {
	type ProgressEvent,
	type ProgressSink,
	progressTime,
	type VertexRecord,
} from "../progress/progress.ts";

/**
 * A build as a trace: a span for the build, and one below it for each time that a step ran. The steps are taken from the build's
 * own progress, so that nothing else has to know of traces.
 */
export interface BuildTrace extends ProgressSink {
	/** The build's span, the parent of whatever is done for it. */
	readonly context: SpanContext;
	/** The span of a step that runs, for the environment of its processes. */
	environment(vertex: string): readonly string[];
	/** Ends the spans that are open. */
	end(error?: string): void;
	/** All spans of the build's trace until now, its client's among them, as the history keeps them. Called once. */
	take(): string;
}

export interface BuildTraceOptions {
	/** The client's span. */
	readonly parent: SpanContext | undefined;
	readonly ref: string;
}

/** As BuildKit's, whose span is that of the call. */
const buildName = "moby.buildkit.v1.Control/Solve";

export function traceBuild(tracing: Tracing, { parent, ref }: BuildTraceOptions): BuildTrace {
	const build = tracing.start(buildName, { parent, kind: "server", attributes: { ref } });
	const recording = tracing.record(build.context.traceId);
	/** By digest: the start of the run that is under way, and of the last one that ended. */
	const running = new Map<string, VertexRecord>();
	const ended = new Map<string, number>();
	/** Of steps that have been asked for before they ended. */
	const named = new Map<string, SpanContext>();
	/** Made into spans when somebody wants them: a large graph has ten thousand, and mostly nobody does. */
	const runs: StepRun[] = [];

	const add = (vertex: VertexRecord, completed: number, error: string | undefined): void => {
		const run = { vertex, completed, error, context: named.get(vertex.digest) ?? childOf(build.context) };
		named.delete(vertex.digest);
		if (runs.length < maxRuns) {
			runs.push(run);
		}
		if (tracing.collects && build.context.sampled) {
			tracing.collect(tracing.describe([spanOf(run, build.context)]));
		}
	};

	const onVertex = (vertex: VertexRecord): void => {
		const { digest, started, completed, error } = vertex;
		// The same record comes again with each change of its state.
		if (started === undefined || ended.get(digest) === started) {
			return;
		}
		const before = running.get(digest);
		if (before !== undefined && before.started !== started) {
			add(before, started, undefined);
		}
		if (completed === undefined) {
			running.set(digest, vertex);
		} else {
			running.delete(digest);
			ended.set(digest, started);
			add(vertex, completed, error === "" ? undefined : error);
		}
	};

	return {
		context: build.context,
		environment(vertex) {
			const context = named.get(vertex) ?? childOf(build.context);
			named.set(vertex, context);
			return Object.entries(traceMetadata(context)).map(
				([name, values]) => `${name.toUpperCase()}=${values.join(",")}`,
			);
		},
		write(event: ProgressEvent) {
			if (event.kind === "vertex") {
				onVertex(event.vertex);
			}
		},
		end(error) {
			for (const vertex of running.values()) {
				add(vertex, progressTime(), "context canceled");
			}
			running.clear();
			build.end({ error });
		},
		take() {
			recording[Symbol.dispose]();
			const steps = tracing.describe(runs.map((run) => spanOf(run, build.context)));
			return traceJson([steps, ...recording.spans()]);
		},
	};
}

/** As many as a recording has spans. */
const maxRuns = 20_000;

interface StepRun {
	readonly vertex: VertexRecord;
	readonly completed: number;
	readonly error: string | undefined;
	readonly context: SpanContext;
}

function spanOf({ vertex, completed, error, context }: StepRun, parent: SpanContext): KnownSpan {
	const { digest, name, cached, started = completed } = vertex;
	return {
		name: cached ? `cache request: ${name}` : name,
		context,
		parent,
		startMs: started,
		endMs: completed,
		error,
		attributes: { vertex: digest, cached },
	};
}
