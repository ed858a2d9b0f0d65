import * as messages from "../generated/health.ts";
import type { Method } from "../grpc.ts";

/** `grpc.health.v1.Health` */
export const health: {
	readonly check: Method<"unary", messages.HealthCheckRequest, messages.HealthCheckResponse>;
	readonly list: Method<"unary", messages.HealthListRequest, messages.HealthListResponse>;
	readonly watch: Method<"server-stream", messages.HealthCheckRequest, messages.HealthCheckResponse>;
} = {
	check: {
		kind: "unary",
		path: "/grpc.health.v1.Health/Check",
		request: messages.HealthCheckRequest,
		response: messages.HealthCheckResponse,
	},
	list: {
		kind: "unary",
		path: "/grpc.health.v1.Health/List",
		request: messages.HealthListRequest,
		response: messages.HealthListResponse,
	},
	watch: {
		kind: "server-stream",
		path: "/grpc.health.v1.Health/Watch",
		request: messages.HealthCheckRequest,
		response: messages.HealthCheckResponse,
	},
};
