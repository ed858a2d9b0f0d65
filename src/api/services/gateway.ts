import * as messages from "../generated/gateway.ts";
import type { Method } from "../grpc.ts";

/** `moby.buildkit.v1.frontend.LLBBridge` */
export const llbBridge: {
	readonly resolveImageConfig: Method<
		"unary",
		messages.ResolveImageConfigRequest,
		messages.ResolveImageConfigResponse
	>;
	readonly resolveSourceMeta: Method<
		"unary",
		messages.ResolveSourceMetaRequest,
		messages.ResolveSourceMetaResponse
	>;
	readonly solve: Method<"unary", messages.SolveRequest, messages.SolveResponse>;
	readonly readFile: Method<"unary", messages.ReadFileRequest, messages.ReadFileResponse>;
	readonly readDir: Method<"unary", messages.ReadDirRequest, messages.ReadDirResponse>;
	readonly statFile: Method<"unary", messages.StatFileRequest, messages.StatFileResponse>;
	readonly evaluate: Method<"unary", messages.EvaluateRequest, messages.EvaluateResponse>;
	readonly ping: Method<"unary", messages.PingRequest, messages.PongResponse>;
	readonly return: Method<"unary", messages.ReturnRequest, messages.ReturnResponse>;
	readonly inputs: Method<"unary", messages.InputsRequest, messages.InputsResponse>;
	readonly newContainer: Method<"unary", messages.NewContainerRequest, messages.NewContainerResponse>;
	readonly releaseContainer: Method<
		"unary",
		messages.ReleaseContainerRequest,
		messages.ReleaseContainerResponse
	>;
	readonly execProcess: Method<"bidi", messages.ExecMessage, messages.ExecMessage>;
	readonly readFileContainer: Method<"unary", messages.ReadFileRequest, messages.ReadFileResponse>;
	readonly readDirContainer: Method<"unary", messages.ReadDirRequest, messages.ReadDirResponse>;
	readonly statFileContainer: Method<"unary", messages.StatFileRequest, messages.StatFileResponse>;
	readonly warn: Method<"unary", messages.WarnRequest, messages.WarnResponse>;
} = {
	resolveImageConfig: {
		kind: "unary",
		path: "/moby.buildkit.v1.frontend.LLBBridge/ResolveImageConfig",
		request: messages.ResolveImageConfigRequest,
		response: messages.ResolveImageConfigResponse,
	},
	resolveSourceMeta: {
		kind: "unary",
		path: "/moby.buildkit.v1.frontend.LLBBridge/ResolveSourceMeta",
		request: messages.ResolveSourceMetaRequest,
		response: messages.ResolveSourceMetaResponse,
	},
	solve: {
		kind: "unary",
		path: "/moby.buildkit.v1.frontend.LLBBridge/Solve",
		request: messages.SolveRequest,
		response: messages.SolveResponse,
	},
	readFile: {
		kind: "unary",
		path: "/moby.buildkit.v1.frontend.LLBBridge/ReadFile",
		request: messages.ReadFileRequest,
		response: messages.ReadFileResponse,
	},
	readDir: {
		kind: "unary",
		path: "/moby.buildkit.v1.frontend.LLBBridge/ReadDir",
		request: messages.ReadDirRequest,
		response: messages.ReadDirResponse,
	},
	statFile: {
		kind: "unary",
		path: "/moby.buildkit.v1.frontend.LLBBridge/StatFile",
		request: messages.StatFileRequest,
		response: messages.StatFileResponse,
	},
	evaluate: {
		kind: "unary",
		path: "/moby.buildkit.v1.frontend.LLBBridge/Evaluate",
		request: messages.EvaluateRequest,
		response: messages.EvaluateResponse,
	},
	ping: {
		kind: "unary",
		path: "/moby.buildkit.v1.frontend.LLBBridge/Ping",
		request: messages.PingRequest,
		response: messages.PongResponse,
	},
	return: {
		kind: "unary",
		path: "/moby.buildkit.v1.frontend.LLBBridge/Return",
		request: messages.ReturnRequest,
		response: messages.ReturnResponse,
	},
	inputs: {
		kind: "unary",
		path: "/moby.buildkit.v1.frontend.LLBBridge/Inputs",
		request: messages.InputsRequest,
		response: messages.InputsResponse,
	},
	newContainer: {
		kind: "unary",
		path: "/moby.buildkit.v1.frontend.LLBBridge/NewContainer",
		request: messages.NewContainerRequest,
		response: messages.NewContainerResponse,
	},
	releaseContainer: {
		kind: "unary",
		path: "/moby.buildkit.v1.frontend.LLBBridge/ReleaseContainer",
		request: messages.ReleaseContainerRequest,
		response: messages.ReleaseContainerResponse,
	},
	execProcess: {
		kind: "bidi",
		path: "/moby.buildkit.v1.frontend.LLBBridge/ExecProcess",
		request: messages.ExecMessage,
		response: messages.ExecMessage,
	},
	readFileContainer: {
		kind: "unary",
		path: "/moby.buildkit.v1.frontend.LLBBridge/ReadFileContainer",
		request: messages.ReadFileRequest,
		response: messages.ReadFileResponse,
	},
	readDirContainer: {
		kind: "unary",
		path: "/moby.buildkit.v1.frontend.LLBBridge/ReadDirContainer",
		request: messages.ReadDirRequest,
		response: messages.ReadDirResponse,
	},
	statFileContainer: {
		kind: "unary",
		path: "/moby.buildkit.v1.frontend.LLBBridge/StatFileContainer",
		request: messages.StatFileRequest,
		response: messages.StatFileResponse,
	},
	warn: {
		kind: "unary",
		path: "/moby.buildkit.v1.frontend.LLBBridge/Warn",
		request: messages.WarnRequest,
		response: messages.WarnResponse,
	},
};
