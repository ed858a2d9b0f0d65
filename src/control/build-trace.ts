import type { SpanContext } from "../api/trace-context.ts";
import { traceJson } from "../api/trace-json.ts";
import type { ActiveSpan, Tracing } from "../api/tracing.ts";
import type { ProgressEvent, ProgressSink, VertexRecord } from "../progress/progress.ts";

/**
 * A build as a trace: a span for the build, and one below it for each time that a step ran. The steps are taken from the build's
 * own progress, so that nothing else has to know of traces.
 */
export interface BuildTrace extends ProgressSink {
	/** The build's span, the parent of whatever is done for it. */
	readonly context: SpanContext;
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
	/** Of each step that runs, with the time of its start. */
	const open = new Map<string, { readonly started: number; readonly span: ActiveSpan }>();
	const seen = new Map<string, number>();

	const onVertex = ({ digest, name, started, completed, cached, error }: VertexRecord): void => {
		// The same record comes again with each change of its state.
		if (started === undefined || seen.get(digest) === started) {
			return;
		}
		let running = open.get(digest);
		if (running?.started !== started) {
			running?.span.end({ endMs: started });
			const span = tracing.start(cached ? `cache request: ${name}` : name, {
				parent: build.context,
				startMs: started,
				attributes: { vertex: digest },
			});
			running = { started, span };
			open.set(digest, running);
		}
		if (completed !== undefined) {
			running.span.end({ endMs: completed, error: error === "" ? undefined : error, attributes: { cached } });
			open.delete(digest);
			seen.set(digest, started);
		}
	};

	return {
		context: build.context,
		write(event: ProgressEvent) {
			if (event.kind === "vertex") {
				onVertex(event.vertex);
			}
		},
		end(error) {
			for (const { span } of open.values()) {
				span.end({ error: "context canceled" });
			}
			open.clear();
			build.end({ error });
		},
		take() {
			recording[Symbol.dispose]();
			return traceJson(recording.spans());
		},
	};
}
