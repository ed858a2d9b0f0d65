import * as messages from "../generated/otlp/metrics-collector.ts";
import type { Method } from "../grpc.ts";

/** `opentelemetry.proto.collector.metrics.v1.MetricsService` */
export const metrics: {
	readonly export: Method<
		"unary",
		messages.ExportMetricsServiceRequest,
		messages.ExportMetricsServiceResponse
	>;
} = {
	export: {
		kind: "unary",
		path: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
		request: messages.ExportMetricsServiceRequest,
		response: messages.ExportMetricsServiceResponse,
	},
};
