import * as messages from "../generated/reflection.ts";
import type { Method } from "../grpc.ts";

type Info = Method<"bidi", messages.ServerReflectionRequest, messages.ServerReflectionResponse>;

/** `grpc.reflection.v1.ServerReflection` */
export const reflection: { readonly serverReflectionInfo: Info } = {
	serverReflectionInfo: {
		kind: "bidi",
		path: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
		request: messages.ServerReflectionRequest,
		response: messages.ServerReflectionResponse,
	},
};

/** `grpc.reflection.v1alpha.ServerReflection`, the same under an older name. */
export const reflectionAlpha: { readonly serverReflectionInfo: Info } = {
	serverReflectionInfo: {
		...reflection.serverReflectionInfo,
		path: "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
	},
};
