import type { ContainerMount } from "../executor/executor.ts";
import type { Digest } from "../oci/digest.ts";

/** How programs of steps add to the trace of their build: they find its collector and their parent in the environment. */
export interface StepTrace {
	/** The socket of a collector that speaks OTLP over gRPC, for any user. */
	readonly socketPath: string;
	/** The span of a step, as OpenTelemetry's variables of processes name it: `TRACEPARENT=…`. */
	environment(vertex: Digest): readonly string[];
}

const socket = "/dev/otel-grpc.sock";

/** BuildKit's. */
const collector = [
	"OTEL_TRACES_EXPORTER=otlp",
	`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=unix://${socket}`,
	"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc",
];

/** What the container of a step needs besides its own; a step that names another collector, or none, keeps it. */
export function traceAccess(
	trace: StepTrace | undefined,
	vertex: Digest,
	env: readonly string[],
): { readonly env: readonly string[]; readonly mounts: readonly ContainerMount[] } {
	if (trace === undefined) {
		return { env, mounts: [] };
	}
	const given = new Set(env.map(nameOf));
	return {
		env: [...env, ...collector.filter((each) => !given.has(nameOf(each))), ...trace.environment(vertex)],
		mounts: [
			{ target: socket, readonly: true, source: { kind: "host", path: trace.socketPath, options: [] } },
		],
	};
}

function nameOf(variable: string): string {
	return variable.split("=", 1)[0] ?? "";
}
