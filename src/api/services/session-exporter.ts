import * as messages from "../generated/session-exporter.ts";
import type { Method } from "../grpc.ts";

/** `moby.exporter.v1.Exporter` */
export const sessionExporter: {
	readonly findExporters: Method<"unary", messages.FindExportersRequest, messages.FindExportersResponse>;
	readonly finalizeExport: Method<"unary", messages.FinalizeExportRequest, messages.FinalizeExportResponse>;
} = {
	findExporters: {
		kind: "unary",
		path: "/moby.exporter.v1.Exporter/FindExporters",
		request: messages.FindExportersRequest,
		response: messages.FindExportersResponse,
	},
	finalizeExport: {
		kind: "unary",
		path: "/moby.exporter.v1.Exporter/FinalizeExport",
		request: messages.FinalizeExportRequest,
		response: messages.FinalizeExportResponse,
	},
};
