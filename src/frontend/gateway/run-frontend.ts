import { serveGrpc } from "../../api/grpc-server.ts";
import { createHealth } from "../../api/health.ts";
import { SlipwayError, toError } from "../../errors/errors.ts";
import type { Definition } from "../../llb/llb.ts";
import type { FrontendBridge, FrontendContainer, FrontendResult } from "../frontend.ts";
import { gatewayMethods } from "./gateway-methods.ts";
import { createGatewayService } from "./gateway-service.ts";
import { ProcessConnection } from "./process-connection.ts";

export interface RunFrontendOptions {
	readonly args: readonly string[];
	readonly env: readonly string[];
	readonly cwd: string;
	readonly inputs: ReadonlyMap<string, Definition>;
	readonly signal: AbortSignal;
}

/**
 * Runs a frontend's program, which is the client of the gateway over its standard streams, until it has ended. Its answer counts
 * only if it ends well; an error that it has returned goes before the one that it ends with.
 */
export async function runFrontend(
	container: FrontendContainer,
	bridge: FrontendBridge,
	{ args, env, cwd, inputs, signal }: RunFrontendOptions,
): Promise<FrontendResult> {
	await using service = createGatewayService(bridge, { inputs });
	await using server = serveGrpc([
		...gatewayMethods(async () => service.handlers),
		...createHealth().methods,
	]);
	const connection = new ProcessConnection();
	const complaints = new Complaints();
	const process = await container.start({
		args,
		env,
		secretEnv: [],
		cwd,
		user: "",
		security: "sandbox",
		terminal: false,
		stdin: connection.stdin,
		onStdout: (chunk) => connection.onStdout(chunk),
		onStderr: (chunk) => complaints.add(chunk),
		removeMountStubsRecursive: true,
	});
	// What a broken connection means is said by the process's end.
	void server.accept(connection);
	const abort = (): void => void container[Symbol.asyncDispose]();
	signal.addEventListener("abort", abort, { once: true });
	let code: number;
	try {
		code = await process.exited;
	} catch (error) {
		signal.throwIfAborted();
		throw service.isDone ? await failureOf(service.returned, toError(error)) : error;
	} finally {
		signal.removeEventListener("abort", abort);
		connection.destroy();
	}
	if (code !== 0) {
		const error = new SlipwayError("unknown", `exit code: ${code}${complaints.text}`, {
			details: [{ kind: "exit", code }],
		});
		throw await failureOf(service.returned, error, service.isDone);
	}
	if (!service.isDone) {
		throw new SlipwayError("unknown", "no result for incomplete build");
	}
	return await service.returned;
}

/** The error that was returned, else the other one. */
async function failureOf(
	returned: Promise<FrontendResult>,
	error: SlipwayError,
	isDone = true,
): Promise<SlipwayError> {
	return isDone
		? await returned.then(
				() => error,
				(own: unknown) => toError(own),
			)
		: error;
}

/** The last words of a program that died. */
class Complaints {
	#text = "";

	add(chunk: Uint8Array): undefined {
		this.#text = (this.#text + new TextDecoder().decode(chunk)).slice(-maxComplaint);
	}

	get text(): string {
		const text = this.#text.trim();
		return text === "" ? "" : `: ${text}`;
	}
}

const maxComplaint = 2000;
