import type * as pb from "../../api/generated/gateway.ts";
import { errorOf } from "../../api/status.ts";
import { SlipwayError, type SourceFile, wrap } from "../../errors/errors.ts";
import { keepCode } from "../../errors/kept-code.ts";
import { fromDefinitionMessage, toDefinitionMessage } from "../../llb/definition-message.ts";
import type { Definition } from "../../llb/llb.ts";
import { fromPlatformMessage } from "../../llb/op-from-message.ts";
import { toPlatformMessage } from "../../llb/op-message.ts";
import type { Digest } from "../../oci/digest.ts";
import { formatReference, parseReference } from "../../oci/reference.ts";
import type { FrontendBridge, FrontendRef, FrontendResult } from "../frontend.ts";
import { wireError } from "../wire-error.ts";
import { gatewayCapabilities, graphCapabilities } from "./capabilities.ts";
import { GatewayContainers } from "./gateway-containers.ts";
import {
	resolvedSourceMessage,
	resolveModeOf,
	resolveSourceRequest,
	statMessage,
} from "./gateway-messages.ts";
import type { GatewayHandlers } from "./gateway-methods.ts";
import { GatewayRefs } from "./gateway-refs.ts";
import { fromPolicyMessage } from "./policy-message.ts";
import { solveState } from "./solve-state.ts";

/**
 * The gateway protocol (`moby.buildkit.v1.frontend.LLBBridge`, spec/api.md, section 4) over one build's bridge: for a client that is
 * its own frontend, and for a frontend in a container. Disposing ends the client's containers.
 */
export interface GatewayService extends AsyncDisposable {
	readonly handlers: GatewayHandlers;
	/** Resolves when the client has returned a result; rejects with the error that it returned. */
	readonly returned: Promise<FrontendResult>;
	/** Whether the client has returned anything. */
	readonly isDone: boolean;
}

export interface GatewayOptions {
	/** Graphs in place of named sources that the frontend was given. */
	readonly inputs: ReadonlyMap<string, Definition>;
}

export function createGatewayService(bridge: FrontendBridge, { inputs }: GatewayOptions): GatewayService {
	const refs = new GatewayRefs();
	const containers = new GatewayContainers(bridge, refs);
	const { promise: returned, resolve, reject } = Promise.withResolvers<FrontendResult>();
	// Whoever does not wait for it hears of the end otherwise.
	returned.catch(() => {});
	let isDone = false;

	function finish(end: () => void): void {
		if (isDone) {
			throw new SlipwayError("unknown", "gateway result is already set");
		}
		isDone = true;
		end();
	}

	/** Runs what a build may refuse; the error is as clients know it. */
	async function building<T>(work: () => Promise<T>): Promise<T> {
		try {
			return await work();
		} catch (error) {
			throw wireError(error);
		}
	}

	/** The same for what may fail by a step of the graph: the error says what is left of it. */
	async function solving<T>(graph: Definition | undefined, work: () => Promise<T>): Promise<T> {
		try {
			return await work();
		} catch (error) {
			throw wireError(wrap(error, "", { details: [solveState(error, { bridge, refs, graph })] }));
		}
	}

	async function solve(
		request: pb.SolveRequest,
		definition: Definition | undefined,
		signal: AbortSignal,
	): Promise<FrontendResult> {
		const { Frontend: frontend, Evaluate: evaluate } = request;
		const sourcePolicies = request.SourcePolicies.map(fromPolicyMessage);
		const cacheImports = request.CacheImports.map(({ Type: type, Attrs: attrs }) => ({
			type,
			attrs: Object.fromEntries(attrs),
		}));
		const empty = { ref: undefined, refs: new Map(), metadata: {}, attestations: new Map() };
		if (definition !== undefined && definition.ops.length > 0) {
			if (frontend !== "") {
				throw new SlipwayError("unknown", "cannot solve with both Definition and Frontend specified");
			}
			return {
				...empty,
				ref: await bridge.solve(definition, { evaluate, signal, cacheImports, sourcePolicies }),
			};
		}
		if (frontend === "") {
			return empty;
		}
		return await bridge.solveFrontend(
			{
				frontend,
				options: Object.fromEntries(request.FrontendOpt),
				inputs: definitionsOf(request.FrontendInputs),
				evaluate,
			},
			{ signal },
		);
	}

	/** Files of a tree; its graph is computed first, so that an error of a step is told apart from one of the file. */
	async function computed(id: string, signal: AbortSignal): Promise<FrontendRef> {
		const ref = refs.get(id);
		await solving(ref.definition, () => ref.evaluate({ signal }));
		return ref;
	}

	const handlers: GatewayHandlers = {
		ping: async () => ({
			FrontendAPICaps: gatewayCapabilities(),
			LLBCaps: graphCapabilities(),
			Workers: [
				{
					ID: bridge.worker.id,
					Labels: new Map(bridge.worker.labels),
					platforms: bridge.platforms.map(toPlatformMessage),
					GCPolicy: [],
					BuildkitVersion: undefined,
					CDIDevices: [],
				},
			],
		}),
		async solve(request, { signal }) {
			const definition = request.Definition && fromDefinitionMessage(request.Definition);
			const result = await solving(definition, () => solve(request, definition, signal));
			if (result.refs.size > 0 && !request.allowResultReturn) {
				throw new SlipwayError("unknown", "solve did not return default result");
			}
			const message = refs.resultMessage(result, { arrayRef: request.allowResultArrayRef });
			if (request.Final) {
				// Clients from before there was `Return`.
				const attrs = legacyAttrs(request.ExporterAttr);
				finish(() => resolve({ ...result, metadata: { ...attrs, ...result.metadata } }));
			}
			const id = message.result?.$case === "refDeprecated" ? message.result.value : "";
			return { ref: request.allowResultReturn ? "" : id, result: message };
		},
		async return({ result, error }) {
			if (result === undefined && error === undefined) {
				throw new SlipwayError("unknown", "gateway return must be either result or err");
			}
			// With both, as BuildKit: the error.
			if (error !== undefined) {
				finish(() => reject(keepCode(errorOf(error))));
			} else if (result !== undefined) {
				const made = refs.resultOf(result);
				finish(() => resolve(made));
			}
			return {};
		},
		async readFile({ Ref: id, FilePath: path, Range: range }, { signal }) {
			const ref = await computed(id, signal);
			return { Data: await solving(undefined, () => ref.readFile(path, { signal, ...rangeOf(range) })) };
		},
		async readDir({ Ref: id, DirPath: path, IncludePattern: includePattern }, { signal }) {
			const ref = await computed(id, signal);
			const entries = await solving(undefined, () => ref.readDirectory(path, { signal, includePattern }));
			return { entries: entries.map(statMessage) };
		},
		async statFile({ Ref: id, Path: path }, { signal }) {
			const ref = await computed(id, signal);
			return { stat: statMessage(await building(() => ref.stat(path, { signal }))) };
		},
		async evaluate({ Ref: id }, { signal }) {
			await computed(id, signal);
			return {};
		},
		async resolveImageConfig(request, { signal }) {
			const ref = normalName(request.Ref);
			try {
				const {
					digest,
					config,
					ref: name,
				} = await bridge.resolveImage(
					{
						ref,
						platform: request.Platform === undefined ? undefined : fromPlatformMessage(request.Platform),
						mode: resolveModeOf(request.ResolveMode),
						logName: request.LogName || `resolve image config for docker-image://${ref}`,
						sourcePolicies: request.SourcePolicies.map(fromPolicyMessage),
						...(request.ResolverType === 1
							? { ociLayout: { sessionId: request.SessionID || undefined, storeId: request.StoreID } }
							: {}),
					},
					{ signal },
				);
				return { Digest: digest, Config: config, Ref: name };
			} catch (error) {
				throw wireError(wrap(error, `failed to resolve source metadata for ${ref}`));
			}
		},
		async resolveSourceMeta(request, { signal }) {
			const wanted = resolveSourceRequest(request);
			return resolvedSourceMessage(await building(() => bridge.resolveSource(wanted, { signal })));
		},
		inputs: async () => ({
			Definitions: new Map([...inputs].map(([name, each]) => [name, toDefinitionMessage(each)])),
		}),
		async warn(request) {
			const decoder = new TextDecoder();
			const source = fileOf(request.info);
			bridge.warn({
				vertex: request.digest as Digest,
				level: request.level || 1,
				short: decoder.decode(request.short),
				detail: request.detail.map((each) => decoder.decode(each)),
				...(request.url === "" ? {} : { url: request.url }),
				...(source === undefined ? {} : { source }),
				ranges: request.ranges.map(({ start, end }) => ({
					start: start ?? { line: 0, character: 0 },
					end: end ?? { line: 0, character: 0 },
				})),
			});
			return {};
		},
		newContainer: (request, { signal }) => containers.create(request, signal),
		releaseContainer: ({ ContainerID: id }) => containers.release(id),
		execProcess: (stream, call) => containers.exec(stream, call),
		async readFileContainer({ Ref: id, FilePath: path, Range: range, MountIndex: index }, { signal }) {
			const mount = await containers.mount(id, index);
			return { Data: await building(() => mount.readFile(path, { signal, ...rangeOf(range) })) };
		},
		async readDirContainer(
			{ Ref: id, DirPath: path, IncludePattern: includePattern, MountIndex: index },
			{ signal },
		) {
			const mount = await containers.mount(id, index);
			const entries = await building(() => mount.readDirectory(path, { signal, includePattern }));
			return { entries: entries.map(statMessage) };
		},
		async statFileContainer({ Ref: id, Path: path, MountIndex: index }, { signal }) {
			const mount = await containers.mount(id, index);
			return { stat: statMessage(await building(() => mount.stat(path, { signal }))) };
		},
	};

	return {
		handlers,
		returned,
		get isDone() {
			return isDone;
		},
		[Symbol.asyncDispose]: () => containers[Symbol.asyncDispose](),
	};
}

function definitionsOf(messages: pb.SolveRequest["FrontendInputs"]): ReadonlyMap<string, Definition> {
	return new Map([...messages].map(([name, message]) => [name, fromDefinitionMessage(message)]));
}

function rangeOf(range: pb.FileRange | undefined): { readonly offset?: number; readonly maxBytes?: number } {
	return range === undefined ? {} : { offset: range.Offset, maxBytes: range.Length };
}

function normalName(text: string): string {
	try {
		return formatReference(parseReference(text));
	} catch (error) {
		throw wrap(error, `could not parse reference ${JSON.stringify(text)}`);
	}
}

function fileOf(info: pb.WarnRequest["info"]): SourceFile | undefined {
	return (
		info && {
			filename: info.filename,
			data: info.data,
			...(info.language === "" ? {} : { language: info.language }),
		}
	);
}

/** JSON of names to base64, Go's form of `map[string][]byte`. */
function legacyAttrs(json: Uint8Array): Readonly<Record<string, Uint8Array>> {
	try {
		const attrs = JSON.parse(new TextDecoder().decode(json)) as Readonly<Record<string, string>> | null;
		return Object.fromEntries(
			Object.entries(attrs ?? {}).map(([key, value]) => [key, Buffer.from(value, "base64")]),
		);
	} catch (error) {
		throw new SlipwayError("unknown", `invalid exporter attributes: ${(error as Error).message}`, {
			cause: error,
		});
	}
}
