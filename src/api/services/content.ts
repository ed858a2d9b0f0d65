import * as messages from "../generated/content.ts";
import { Empty } from "../generated/google/protobuf/empty.ts";
import type { Method } from "../grpc.ts";

/** `containerd.services.content.v1.Content` */
export const content: {
	readonly info: Method<"unary", messages.InfoRequest, messages.InfoResponse>;
	readonly update: Method<"unary", messages.UpdateRequest, messages.UpdateResponse>;
	readonly list: Method<"server-stream", messages.ListContentRequest, messages.ListContentResponse>;
	readonly delete: Method<"unary", messages.DeleteContentRequest, Empty>;
	readonly read: Method<"server-stream", messages.ReadContentRequest, messages.ReadContentResponse>;
	readonly status: Method<"unary", messages.StatusRequest, messages.StatusResponse>;
	readonly listStatuses: Method<"unary", messages.ListStatusesRequest, messages.ListStatusesResponse>;
	readonly write: Method<"bidi", messages.WriteContentRequest, messages.WriteContentResponse>;
	readonly abort: Method<"unary", messages.AbortRequest, Empty>;
} = {
	info: {
		kind: "unary",
		path: "/containerd.services.content.v1.Content/Info",
		request: messages.InfoRequest,
		response: messages.InfoResponse,
	},
	update: {
		kind: "unary",
		path: "/containerd.services.content.v1.Content/Update",
		request: messages.UpdateRequest,
		response: messages.UpdateResponse,
	},
	list: {
		kind: "server-stream",
		path: "/containerd.services.content.v1.Content/List",
		request: messages.ListContentRequest,
		response: messages.ListContentResponse,
	},
	delete: {
		kind: "unary",
		path: "/containerd.services.content.v1.Content/Delete",
		request: messages.DeleteContentRequest,
		response: Empty,
	},
	read: {
		kind: "server-stream",
		path: "/containerd.services.content.v1.Content/Read",
		request: messages.ReadContentRequest,
		response: messages.ReadContentResponse,
	},
	status: {
		kind: "unary",
		path: "/containerd.services.content.v1.Content/Status",
		request: messages.StatusRequest,
		response: messages.StatusResponse,
	},
	listStatuses: {
		kind: "unary",
		path: "/containerd.services.content.v1.Content/ListStatuses",
		request: messages.ListStatusesRequest,
		response: messages.ListStatusesResponse,
	},
	write: {
		kind: "bidi",
		path: "/containerd.services.content.v1.Content/Write",
		request: messages.WriteContentRequest,
		response: messages.WriteContentResponse,
	},
	abort: {
		kind: "unary",
		path: "/containerd.services.content.v1.Content/Abort",
		request: messages.AbortRequest,
		response: Empty,
	},
};
