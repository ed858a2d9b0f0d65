import * as messages from "../generated/ssh.ts";
import type { Method } from "../grpc.ts";
import { type BytesMessage, bytesMessage } from "./bytes-message.ts";

/** `moby.sshforward.v1.SSH` */
export const ssh: {
	readonly checkAgent: Method<"unary", messages.CheckAgentRequest, messages.CheckAgentResponse>;
	readonly forwardAgent: Method<"bidi", BytesMessage, BytesMessage>;
} = {
	checkAgent: {
		kind: "unary",
		path: "/moby.sshforward.v1.SSH/CheckAgent",
		request: messages.CheckAgentRequest,
		response: messages.CheckAgentResponse,
	},
	forwardAgent: {
		kind: "bidi",
		path: "/moby.sshforward.v1.SSH/ForwardAgent",
		request: bytesMessage,
		response: bytesMessage,
	},
};
