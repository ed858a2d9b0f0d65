import * as reflectionMessages from "../generated/reflection.ts";
import * as reflectionAlphaMessages from "../generated/reflection-alpha.ts";
import type { Method } from "../grpc.ts";

/** `grpc.reflection.v1.ServerReflection` */
export const reflection: {
	readonly serverReflectionInfo: Method<
		"bidi",
		reflectionMessages.ServerReflectionRequest,
		reflectionMessages.ServerReflectionResponse
	>;
} = {
	serverReflectionInfo: {
		kind: "bidi",
		path: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
		request: reflectionMessages.ServerReflectionRequest,
		response: reflectionMessages.ServerReflectionResponse,
	},
};

/** `grpc.reflection.v1alpha.ServerReflection` */
export const reflectionAlpha: {
	readonly serverReflectionInfo: Method<
		"bidi",
		reflectionAlphaMessages.ServerReflectionRequest,
		reflectionAlphaMessages.ServerReflectionResponse
	>;
} = {
	serverReflectionInfo: {
		kind: "bidi",
		path: "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
		request: reflectionAlphaMessages.ServerReflectionRequest,
		response: reflectionAlphaMessages.ServerReflectionResponse,
	},
};
