import { isIP } from "node:net";
import type * as pb from "../../api/generated/gateway.ts";
import { NetMode, SecurityMode } from "../../api/generated/ops.ts";
import type { MessageStream, ServerCall } from "../../api/grpc.ts";
import { SlipwayError, wrap } from "../../errors/errors.ts";
import type { NetworkMode } from "../../llb/op.ts";
import { fromMountMessage, fromPlatformMessage } from "../../llb/op-from-message.ts";
import type { FrontendBridge, FrontendContainer, FrontendMount, FrontendRef } from "../frontend.ts";
import { wireError } from "../wire-error.ts";
import { runProcesses } from "./exec-processes.ts";
import type { GatewayRefs } from "./gateway-refs.ts";

/** The containers of one client of the gateway, by the ids that it gives them. */
export class GatewayContainers implements AsyncDisposable {
	readonly #bridge: FrontendBridge;
	readonly #refs: GatewayRefs;
	readonly #byId = new Map<string, FrontendContainer>();

	constructor(bridge: FrontendBridge, refs: GatewayRefs) {
		this.#bridge = bridge;
		this.#refs = refs;
	}

	async create(request: pb.NewContainerRequest, signal: AbortSignal): Promise<pb.NewContainerResponse> {
		const { ContainerID: id } = request;
		const mounts = request.Mounts.map((mount) => this.#mountOf(mount));
		const wanted = {
			mounts,
			network: networkOf(request.Network),
			platform: request.platform === undefined ? undefined : fromPlatformMessage(request.platform),
			extraHosts: request.extraHosts.map(({ Host: host, IP: ip }) => ({ host, ip: checkIp(ip) })),
			hostname: request.hostname,
		};
		const container = await this.#bridge.newContainer(wanted, { signal }).catch((error: unknown) => {
			throw wireError(error);
		});
		if (this.#byId.has(id)) {
			await container[Symbol.asyncDispose]();
			throw new SlipwayError("already-exists", `Container ${id} already exists`);
		}
		this.#byId.set(id, container);
		return {};
	}

	async release(id: string): Promise<pb.ReleaseContainerResponse> {
		const container = this.#get(id, `container details for ${id} not found`);
		this.#byId.delete(id);
		await container[Symbol.asyncDispose]();
		return {};
	}

	async mount(id: string, index: number): Promise<Pick<FrontendRef, "readFile" | "readDirectory" | "stat">> {
		return await this.#get(id, `container details for ${id}@${index} not found`).mount(index);
	}

	async exec(stream: MessageStream<pb.ExecMessage, pb.ExecMessage>, call: ServerCall): Promise<void> {
		await runProcesses(stream, call, {
			containerOf: (id) =>
				this.#get(id, `container ${JSON.stringify(id)} previously released or not created`, "not-found"),
			securityOf: (mode) => (mode === SecurityMode.INSECURE ? "insecure" : "sandbox"),
		});
	}

	async [Symbol.asyncDispose](): Promise<void> {
		const all = [...this.#byId.values()];
		this.#byId.clear();
		await Promise.all(all.map((container) => container[Symbol.asyncDispose]()));
	}

	#get(id: string, missing: string, code: "unknown" | "not-found" = "unknown"): FrontendContainer {
		const container = this.#byId.get(id);
		if (container === undefined) {
			throw new SlipwayError(code, missing);
		}
		return container;
	}

	#mountOf(message: pb.NewContainerRequest["Mounts"][number]): FrontendMount {
		const mount = fromMountMessage(message);
		try {
			return { mount, ref: this.#refs.mountable(message.resultID) };
		} catch (error) {
			throw wrap(error, `failed to find ref ${message.resultID} for ${JSON.stringify(message.dest)} mount`);
		}
	}
}

function networkOf(mode: number): NetworkMode {
	switch (mode) {
		case NetMode.UNSET:
			return "sandbox";
		case NetMode.HOST:
			return "host";
		case NetMode.NONE:
			return "none";
		default:
			throw new SlipwayError("invalid-argument", `unknown network mode ${mode}`);
	}
}

function checkIp(ip: string): string {
	if (isIP(ip) === 0) {
		throw new SlipwayError("unknown", `failed to parse IP ${ip}`);
	}
	return ip;
}
