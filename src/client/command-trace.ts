import type { ResourceSpans } from "../api/generated/otlp/trace.ts";
import type { CallOptions, Channel } from "../api/grpc.ts";
import { createSpanExporter, readOtlpResource, readOtlpSampler, readOtlpSettings } from "../api/otlp.ts";
import { trace } from "../api/services/trace.ts";
import { parseTraceParent, type SpanContext, traceMetadata } from "../api/trace-context.ts";
import { createTracing, type Tracing } from "../api/tracing.ts";
import { toError } from "../errors/errors.ts";

/**
 * The trace of one command of a client: a span for the command, below the one that `TRACEPARENT` of its environment names, and one
 * below it for each call of a builder. They go to the collector of the environment (`OTEL_…`), if there is one, and to the builders
 * that the command speaks to, which keep them with the trace of the build.
 */
export interface CommandTrace extends AsyncDisposable {
	readonly tracing: Tracing;
	/** The command's span. */
	readonly context: SpanContext;
	/** The channel with its calls as parts of this trace. */
	traced(channel: Channel): Channel;
	/** Gives the builder at the other end the spans that have ended. Never rejects: a trace is no reason to fail. */
	deliver(channel: Channel): Promise<void>;
	/** The end of the command; only the first counts. */
	end(error?: string): void;
}

export interface CommandTraceOptions {
	/** Of the command: `build`. */
	readonly name: string;
	readonly argv: readonly string[];
	readonly program: { readonly name: string; readonly version: string };
	readonly env: Readonly<Record<string, string | undefined>>;
	readonly warn: (message: string) => void;
}

/** More are lost: they wait for a builder that may never come. As BuildKit's clients. */
const maxKeptSpans = 256;
const deliveryMs = 2000;

/** Throws `invalid-argument` for an environment that asks for what there is not, unless that says `OTEL_IGNORE_ERROR`. */
export function openCommandTrace({ name, argv, program, env, warn }: CommandTraceOptions): CommandTrace {
	const kept: ResourceSpans[] = [];
	const { settings, samples } = settingsOf(env);
	const exporter = settings && createSpanExporter({ settings, warn });
	const tracing = createTracing({
		resource: readOtlpResource(env, {
			"service.name": program.name,
			"service.version": program.version,
			"telemetry.sdk.language": "nodejs",
			"telemetry.sdk.name": "slipway",
		}),
		scope: { name: "", version: "" },
		samples,
		collector: {
			write(spans) {
				exporter?.write(spans);
				if (kept.length < maxKeptSpans) {
					kept.push(spans);
				}
			},
		},
	});
	const command = tracing.start(name, {
		parent: parseTraceParent(env["TRACEPARENT"] ?? "", env["TRACESTATE"]),
		attributes: { command: argv },
	});
	const withSpan = (options: CallOptions, context: SpanContext): CallOptions => ({
		...options,
		metadata: { ...traceMetadata(context), ...options.metadata },
	});
	return {
		tracing,
		context: command.context,
		end: (error) => command.end({ error }),
		traced: (channel) => ({
			closed: channel.closed,
			async unary(method, request, options) {
				const span = tracing.start(method.path.slice(1), {
					parent: command.context,
					kind: "client",
					attributes: { "rpc.method": method.path.slice(1), "rpc.system.name": "grpc" },
				});
				try {
					const response = await channel.unary(method, request, withSpan(options, span.context));
					span.end();
					return response;
				} catch (thrown) {
					span.end({ error: toError(thrown).message });
					throw thrown;
				}
			},
			stream: (method, options) => channel.stream(method, withSpan(options, command.context)),
			[Symbol.asyncDispose]: () => channel[Symbol.asyncDispose](),
		}),
		async deliver(channel) {
			const resourceSpans = kept.splice(0);
			if (resourceSpans.length === 0 || channel.closed.aborted) {
				return;
			}
			const signal = AbortSignal.timeout(deliveryMs);
			await channel.unary(trace.export, { resourceSpans }, { signal }).catch(() => {});
		},
		async [Symbol.asyncDispose]() {
			command.end();
			await exporter?.[Symbol.asyncDispose]();
		},
	};
}

function settingsOf(env: CommandTraceOptions["env"]): {
	readonly settings?: ReturnType<typeof readOtlpSettings>;
	readonly samples: (traceId: string) => boolean;
} {
	try {
		return { settings: readOtlpSettings(env), samples: readOtlpSampler(env) };
	} catch (thrown) {
		if (env["OTEL_IGNORE_ERROR"] !== "true" && env["OTEL_IGNORE_ERROR"] !== "1") {
			throw toError(thrown);
		}
		return { samples: () => true };
	}
}
