import { type Served, startServer } from "../../api/connection.fixture.ts";
import type * as pb from "../../api/generated/gateway.ts";
import type { Method } from "../../api/grpc.ts";
import { llbBridge } from "../../api/services/gateway.ts";
import { SlipwayError } from "../../errors/errors.ts";
import { toDefinitionMessage } from "../../llb/definition-message.ts";
import { mkfile } from "../../llb/file-steps.ts";
import type { Definition } from "../../llb/llb.ts";
import { scratch } from "../../llb/state.ts";
import type {
	ContainerProcessRequest,
	FailedStep,
	FrontendBridge,
	FrontendContainer,
	FrontendEntry,
	FrontendRef,
	FrontendResult,
	FrontendWarning,
	NewContainerRequest,
	ResolveSourceRequest,
	SolveFrontendRequest,
	SolveOptions,
} from "../frontend.ts";
import { gatewayMethods } from "./gateway-methods.ts";
import { createGatewayService, type GatewayService } from "./gateway-service.ts";

/** A client of the gateway over a connection in memory, and behind it a bridge that has files instead of a builder. */
export interface GatewayWorld extends AsyncDisposable {
	readonly service: GatewayService;
	readonly served: Served;
	readonly bridge: WorldBridge;
	call<Request, Response>(
		method: Method<"unary", Request, Response>,
		request: Request,
		options?: { readonly signal?: AbortSignal },
	): Promise<Response>;
}

export interface WorldBridge extends FrontendBridge {
	readonly warnings: FrontendWarning[];
	readonly solved: SolveOptions[];
	readonly asked: SolveFrontendRequest[];
	readonly resolved: ResolveSourceRequest[];
	readonly containers: WorldContainer[];
}

export interface WorldContainer extends FrontendContainer {
	readonly request: NewContainerRequest;
	readonly disposed: boolean;
}

export interface WorldOptions {
	/** Of every tree. */
	readonly files?: Readonly<Record<string, string>>;
	/** What computing any tree fails with. */
	readonly error?: SlipwayError;
	readonly failed?: FailedStep;
	/** What another frontend gives. */
	readonly frontend?: FrontendResult;
	/** What a process in a container does; its exit code. */
	readonly run?: (process: ContainerProcessRequest, control: ProcessControl) => Promise<number>;
	readonly inputs?: ReadonlyMap<string, Definition>;
}

export interface ProcessControl {
	readonly signals: NodeJS.Signals[];
	readonly sizes: string[];
}

export const never: AbortSignal = new AbortController().signal;

export async function openWorld(options: WorldOptions = {}): Promise<GatewayWorld> {
	const bridge = worldBridge(options);
	const service = createGatewayService(bridge, { inputs: options.inputs ?? new Map() });
	const served = await startServer(gatewayMethods(async () => service.handlers));
	return {
		service,
		served,
		bridge,
		call: (method, request, { signal = never } = {}) => served.channel.unary(method, request, { signal }),
		async [Symbol.asyncDispose]() {
			await served[Symbol.asyncDispose]();
			await service[Symbol.asyncDispose]();
		},
	};
}

/** A request with what it does not say left at its default. */
export function solveRequest(more: Partial<pb.SolveRequest>): pb.SolveRequest {
	return {
		Definition: undefined,
		Frontend: "",
		FrontendOpt: new Map(),
		allowResultReturn: true,
		allowResultArrayRef: true,
		Final: false,
		ExporterAttr: new Uint8Array(),
		CacheImports: [],
		FrontendInputs: new Map(),
		Evaluate: false,
		SourcePolicies: [],
		...more,
	};
}

/** A graph of one file. */
export function oneFile(name = "/a"): Definition {
	return scratch()
		.file(mkfile(name, 0o644, ""))
		.marshal();
}

/** Solves a graph and gives its ref. */
export async function solveOne(world: GatewayWorld, definition: Definition): Promise<string> {
	const { result } = await world.call(
		llbBridge.solve,
		solveRequest({ Definition: toDefinitionMessage(definition) }),
	);
	return result?.result?.$case === "ref" ? result.result.value.id : "";
}

function worldBridge(options: WorldOptions): WorldBridge {
	const bridge: WorldBridge = {
		warnings: [],
		solved: [],
		asked: [],
		resolved: [],
		containers: [],
		platforms: [{ os: "linux", architecture: "amd64" }],
		worker: { id: "worker1", labels: new Map([["a", "b"]]) },
		async solve(definition, given) {
			bridge.solved.push(given);
			const ref = worldRef(definition, options);
			if (given.evaluate) {
				await ref.evaluate(given);
			}
			return ref;
		},
		async solveFrontend(request) {
			bridge.asked.push(request);
			if (options.frontend === undefined) {
				throw new SlipwayError("unknown", `invalid frontend: ${request.frontend}`);
			}
			return options.frontend;
		},
		async resolveImage({ ref }) {
			throw new SlipwayError("not-found", `${ref}: not found`);
		},
		async resolveSource(request) {
			bridge.resolved.push(request);
			return { source: request.source };
		},
		warn: (warning) => void bridge.warnings.push(warning),
		async newContainer(request) {
			const container = worldContainer(request, options);
			bridge.containers.push(container);
			return container;
		},
		failedStep: () => options.failed,
	};
	return bridge;
}

export function worldRef(definition: Definition, { files = {}, error }: WorldOptions): FrontendRef {
	const find = (call: string, path: string): Uint8Array => {
		const text = files[path];
		if (text === undefined) {
			throw new SlipwayError("not-found", `${call} ${path}: no such file or directory`);
		}
		return Buffer.from(text);
	};
	const entry = (path: string): FrontendEntry => ({
		name: path.slice(path.lastIndexOf("/") + 1),
		kind: "file",
		size: find("lstat", path).length,
		modifiedMs: 0,
		modifiedNs: 7n,
		mode: 0o104644,
		uid: 1,
		gid: 2,
		linkTarget: "",
		deviceMajor: 0,
		deviceMinor: 0,
		xattrs: new Map([["user.x", Buffer.from("y")]]),
	});
	return {
		definition,
		async evaluate() {
			if (error !== undefined) {
				throw error;
			}
		},
		async readFile(path, { offset = 0, maxBytes }) {
			return find("open", path).subarray(offset, maxBytes === undefined ? undefined : offset + maxBytes);
		},
		readDirectory: async () => Object.keys(files).map(entry),
		stat: async (path) => entry(path),
	};
}

function worldContainer(request: NewContainerRequest, options: WorldOptions): WorldContainer {
	let disposed = false;
	return {
		request,
		get disposed() {
			return disposed;
		},
		async start(process) {
			const control: ProcessControl = { signals: [], sizes: [] };
			return {
				exited: options.run?.(process, control) ?? Promise.resolve(0),
				resize: ({ rows, columns }) => void control.sizes.push(`${rows}x${columns}`),
				signal: (name) => void control.signals.push(name),
			};
		},
		mount: async () => worldRef(oneFile(), options),
		async [Symbol.asyncDispose]() {
			disposed = true;
		},
	};
}
