import type { Handlers, Method, MethodKind, ServedMethod, ServerCall } from "../../api/grpc.ts";
import { serve } from "../../api/grpc-server.ts";
import { llbBridge } from "../../api/services/gateway.ts";
import { wrap } from "../../errors/errors.ts";

/** A handler for each method of the gateway. */
export type GatewayHandlers = {
	readonly [Name in keyof typeof llbBridge]: HandlerOf<(typeof llbBridge)[Name]>;
};

type HandlerOf<M> =
	M extends Method<infer Kind, infer Request, infer Response> ? Handlers<Request, Response>[Kind] : never;

/** All methods, served by handlers that are looked up for each call. */
export function gatewayMethods(
	find: (call: ServerCall) => Promise<GatewayHandlers>,
): readonly ServedMethod[] {
	return (Object.keys(llbBridge) as (keyof typeof llbBridge)[]).map((name) => {
		const method = llbBridge[name] as unknown as Method<MethodKind, never, never>;
		return serve(method, (async (input: never, call: ServerCall): Promise<unknown> => {
			const handlers = await findHandlers(find, call, method.path);
			return await (handlers[name] as (input: never, call: ServerCall) => Promise<unknown>)(input, call);
		}) as never);
	});
}

async function findHandlers(
	find: (call: ServerCall) => Promise<GatewayHandlers>,
	call: ServerCall,
	path: string,
): Promise<GatewayHandlers> {
	try {
		return await find(call);
	} catch (error) {
		throw wrap(error, `forwarding ${path.slice(path.lastIndexOf("/") + 1)}`);
	}
}
