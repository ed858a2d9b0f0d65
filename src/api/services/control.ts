import * as messages from "../generated/control.ts";
import type { Method } from "../grpc.ts";
import { type BytesMessage, bytesMessage, type TunnelMessage, tunnelMessage } from "./bytes-message.ts";

/** `moby.buildkit.v1.Control` */
export const control: {
	readonly diskUsage: Method<"unary", messages.DiskUsageRequest, messages.DiskUsageResponse>;
	readonly prune: Method<"server-stream", messages.PruneRequest, messages.UsageRecord>;
	readonly solve: Method<"unary", messages.SolveRequest, messages.SolveResponse>;
	readonly status: Method<"server-stream", messages.StatusRequest, messages.StatusResponse>;
	readonly session: Method<"bidi", TunnelMessage, BytesMessage>;
	readonly listWorkers: Method<"unary", messages.ListWorkersRequest, messages.ListWorkersResponse>;
	readonly info: Method<"unary", messages.InfoRequest, messages.InfoResponse>;
	readonly listenBuildHistory: Method<
		"server-stream",
		messages.BuildHistoryRequest,
		messages.BuildHistoryEvent
	>;
	readonly updateBuildHistory: Method<
		"unary",
		messages.UpdateBuildHistoryRequest,
		messages.UpdateBuildHistoryResponse
	>;
} = {
	diskUsage: {
		kind: "unary",
		path: "/moby.buildkit.v1.Control/DiskUsage",
		request: messages.DiskUsageRequest,
		response: messages.DiskUsageResponse,
	},
	prune: {
		kind: "server-stream",
		path: "/moby.buildkit.v1.Control/Prune",
		request: messages.PruneRequest,
		response: messages.UsageRecord,
	},
	solve: {
		kind: "unary",
		path: "/moby.buildkit.v1.Control/Solve",
		request: messages.SolveRequest,
		response: messages.SolveResponse,
	},
	status: {
		kind: "server-stream",
		path: "/moby.buildkit.v1.Control/Status",
		request: messages.StatusRequest,
		response: messages.StatusResponse,
	},
	session: {
		kind: "bidi",
		path: "/moby.buildkit.v1.Control/Session",
		request: tunnelMessage,
		response: bytesMessage,
	},
	listWorkers: {
		kind: "unary",
		path: "/moby.buildkit.v1.Control/ListWorkers",
		request: messages.ListWorkersRequest,
		response: messages.ListWorkersResponse,
	},
	info: {
		kind: "unary",
		path: "/moby.buildkit.v1.Control/Info",
		request: messages.InfoRequest,
		response: messages.InfoResponse,
	},
	listenBuildHistory: {
		kind: "server-stream",
		path: "/moby.buildkit.v1.Control/ListenBuildHistory",
		request: messages.BuildHistoryRequest,
		response: messages.BuildHistoryEvent,
	},
	updateBuildHistory: {
		kind: "unary",
		path: "/moby.buildkit.v1.Control/UpdateBuildHistory",
		request: messages.UpdateBuildHistoryRequest,
		response: messages.UpdateBuildHistoryResponse,
	},
};
