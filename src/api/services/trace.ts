import * as messages from "../generated/otlp/collector.ts";
import type { Method } from "../grpc.ts";

/** `opentelemetry.proto.collector.trace.v1.TraceService` */
export const trace: {
	readonly export: Method<"unary", messages.ExportTraceServiceRequest, messages.ExportTraceServiceResponse>;
} = {
	export: {
		kind: "unary",
		path: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
		request: messages.ExportTraceServiceRequest,
		response: messages.ExportTraceServiceResponse,
	},
};
