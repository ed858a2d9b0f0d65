import { emptySolveRequest } from "../api/generated/control.ts";
import { emptySolveRequest as emptyBridgeSolve, emptyReturnRequest } from "../api/generated/gateway.ts";
import type { Channel } from "../api/grpc.ts";
import { control } from "../api/services/control.ts";
import { llbBridge } from "../api/services/gateway.ts";
import { statusOf } from "../api/status.ts";
import { canceled, toError, wrap } from "../errors/errors.ts";
import { toDefinitionMessage } from "../llb/definition-message.ts";
import { serveSession } from "../session/serve-session.ts";
import type { SessionOutput } from "../session/session.ts";
import type { SolveOptions, SolveRequest, SolveResponse, TypeAndAttrs } from "./client.ts";
import { followStatus } from "./connect.ts";

/** One build: a session that lends, a call that waits for the end, a call that tells what happens. */
export async function solve(
	channel: Channel,
	request: SolveRequest,
	{ lends, progress, signal }: SolveOptions,
): Promise<SolveResponse> {
	signal.throwIfAborted();
	const ending = new AbortController();
	const all = AbortSignal.any([signal, ending.signal]);
	await using _session = await serveSession(channel, lends, { signal: all });
	// A question has its answer in the result's metadata, which only a client that is the frontend gets to see.
	const isQuestion = request.frontendOptions["requestid"] !== undefined;
	const call = channel.unary(control.solve, controlRequest(request, lends.id, isQuestion), { signal: all });
	const status = followStatus(channel, request.ref, progress, ending.signal);
	// How the build ended is told by `call`.
	status.catch(() => {});
	try {
		const metadata = isQuestion ? await askFrontend(channel, request, call, all) : {};
		const { ExporterResponse } = await call;
		await nameResults(lends.outputs ?? [], ExporterResponse);
		// It ends by itself when all was told.
		await Promise.race([status, timeout(3000)]);
		return { exporterResponse: Object.fromEntries(ExporterResponse), metadata };
	} catch (thrown) {
		await Promise.race([status.catch(() => {}), timeout(signal.aborted ? 0 : 3000)]);
		throw signal.aborted ? canceled(signal.reason) : wrap(thrown, "failed to solve");
	} finally {
		ending.abort(canceled());
	}
}

/** A builder elsewhere writes blobs to an OCI layout of ours; its index is for us to write. */
async function nameResults(
	outputs: readonly (SessionOutput | undefined)[],
	response: ReadonlyMap<string, string>,
): Promise<void> {
	const descriptor = response.get("containerimage.descriptor");
	const names = response.get("image.name")?.split(",") ?? [];
	for (const output of outputs) {
		if (output?.kind === "store" && descriptor !== undefined) {
			await output.store.setRoot(Buffer.from(descriptor, "base64").toString(), names);
		}
	}
}

function timeout(milliseconds: number): Promise<void> {
	return new Promise((wake) => setTimeout(wake, milliseconds).unref());
}

function controlRequest(request: SolveRequest, session: string, isQuestion: boolean) {
	const entries = (list: readonly TypeAndAttrs[]) =>
		list.map(({ type, attrs }) => ({ Type: type, Attrs: new Map(Object.entries(attrs)) }));
	const exporters = entries(request.exporters);
	return {
		...emptySolveRequest(),
		Ref: request.ref,
		Session: session,
		// The client is the frontend, then.
		...(isQuestion
			? {}
			: {
					Frontend: request.frontend ?? "",
					FrontendAttrs: new Map(Object.entries(request.frontendOptions)),
					FrontendInputs: inputsOf(request),
					Definition: request.definition && toDefinitionMessage(request.definition),
				}),
		Exporters: exporters,
		// What builders older than lists of exporters read.
		ExporterDeprecated: exporters[0]?.Type ?? "",
		ExporterAttrsDeprecated: exporters[0]?.Attrs ?? new Map<string, string>(),
		Cache: {
			ExportRefDeprecated: "",
			ImportRefsDeprecated: [],
			ExportAttrsDeprecated: new Map<string, string>(),
			Exports: entries(request.cacheExports),
			Imports: entries(request.cacheImports),
		},
		Entitlements: request.entitlements,
		SourcePolicy: request.sourcePolicy,
		ProxyNetwork: request.proxyNetwork ?? false,
	};
}

function inputsOf({ frontendInputs }: SolveRequest) {
	return new Map([...frontendInputs].map(([name, input]) => [name, toDefinitionMessage(input)] as const));
}

/** Is the frontend of the build `call` by passing on to a frontend of the builder; gives the metadata of its result. */
async function askFrontend(
	channel: Channel,
	request: SolveRequest,
	call: Promise<unknown>,
	signal: AbortSignal,
): Promise<Readonly<Record<string, Uint8Array>>> {
	const failed = new AbortController();
	call.catch((thrown: unknown) => failed.abort(toError(thrown)));
	const options = {
		signal: AbortSignal.any([signal, failed.signal]),
		metadata: { "buildkit-controlapi-buildid": [request.ref] },
	};
	try {
		const { result } = await channel.unary(
			llbBridge.solve,
			{
				...emptyBridgeSolve(),
				Frontend: request.frontend ?? "",
				FrontendOpt: new Map(Object.entries(request.frontendOptions)),
				FrontendInputs: inputsOf(request),
				allowResultReturn: true,
				allowResultArrayRef: true,
			},
			options,
		);
		await channel.unary(llbBridge.return, { ...emptyReturnRequest(), result }, options);
		return Object.fromEntries(result?.metadata ?? []);
	} catch (thrown) {
		if (failed.signal.aborted) {
			throw failed.signal.reason;
		}
		const back = { ...emptyReturnRequest(), error: statusOf(thrown) };
		await channel.unary(llbBridge.return, back, options).catch(() => {});
		throw thrown;
	}
}
