import { SlipwayError, wrap } from "../../errors/errors.ts";
import { encodeDefinition } from "../../llb/definition-message.ts";
import type { Definition } from "../../llb/llb.ts";
import { image } from "../../llb/sources.ts";
import { parseImageConfig } from "../../oci/image-config.ts";
import {
	formatReference,
	parseReference,
	referenceName,
	withDefaultTag,
	withDigest,
} from "../../oci/reference.ts";
import { createBuildContext } from "../dockerfile/build-context.ts";
import { isOwnFrontend } from "../dockerfile/frontend.ts";
import { parseGoBool } from "../dockerfile/go-number.ts";
import { findNamedContext, type NamedContext } from "../dockerfile/named-context.ts";
import { errorDetails } from "../error-details.ts";
import type { Frontend, FrontendBridge, FrontendRequest, FrontendResult } from "../frontend.ts";
import { runFrontend } from "./run-frontend.ts";

export interface GatewayFrontendOptions {
	/** Images that may be frontends, without tag and digest; empty: all. */
	readonly allowedRepositories: readonly string[];
}

/**
 * The frontend `gateway.v0`: runs an image that is a frontend, in a container that speaks the gateway protocol over its standard
 * streams. Docker's own Dockerfile frontend is built in, and asked in place of its image.
 */
export function createGatewayFrontend({ allowedRepositories }: GatewayFrontendOptions): Frontend {
	return {
		async solve(request, bridge) {
			const { options, inputs, signal } = request;
			if (options["gateway-devel"] !== undefined) {
				throw new SlipwayError("unknown", "development gateway is no longer supported");
			}
			const source = options["source"];
			if (source === undefined) {
				throw new SlipwayError("unknown", "no source specified for gateway");
			}
			checkAllowed(source, allowedRepositories);
			const named = namedContext(source, request, bridge);
			if (named === undefined && isOwnFrontend(source)) {
				const own = { frontend: "dockerfile.v0", options: { cmdline: source, ...options } };
				return await bridge.solveFrontend({ ...own, inputs, evaluate: false }, { signal });
			}
			const program =
				named === undefined ? await pullFrontend(source, request, bridge) : await loadNamed(named);
			return await runImage(program, request, bridge);
		},
	};
}

function checkAllowed(source: string, allowed: readonly string[]): void {
	if (allowed.length > 0 && !allowed.includes(referenceName(parseReference(source)))) {
		throw new SlipwayError("unknown", `'${source}' is not an allowed gateway source`);
	}
}

/** What the client puts in place of the image. */
function namedContext(
	source: string,
	request: FrontendRequest,
	bridge: FrontendBridge,
): NamedContext | undefined {
	return findNamedContext(
		source,
		{ request, bridge, context: createBuildContext(request, bridge), abort: () => {} },
		{ platform: undefined, resolveMode: "default", followPaths: () => [] },
	);
}

interface FrontendProgram {
	readonly definition: Definition;
	readonly env: readonly string[];
	/** Undefined where the image says nothing. */
	readonly entrypoint: readonly string[] | undefined;
	readonly workingDir: string;
	readonly labels: ReadonlyMap<string, string>;
}

async function loadNamed(named: NamedContext): Promise<FrontendProgram> {
	const { state, image: draft } = await named.load();
	return {
		definition: state.marshal(),
		env: draft?.env ?? [],
		entrypoint: draft === undefined || draft.entrypoint.length === 0 ? undefined : draft.entrypoint,
		workingDir: draft?.workingDir ?? "",
		labels: draft?.labels ?? new Map(),
	};
}

async function pullFrontend(
	source: string,
	{ signal }: FrontendRequest,
	bridge: FrontendBridge,
): Promise<FrontendProgram> {
	const ref = formatReference(withDefaultTag(parseReference(source)));
	let resolved: Awaited<ReturnType<FrontendBridge["resolveImage"]>>;
	try {
		resolved = await bridge.resolveImage(
			{
				ref,
				platform: undefined,
				mode: "default",
				logName: `resolve image config for docker-image://${ref}`,
			},
			{ signal },
		);
	} catch (error) {
		throw wrap(error, `failed to resolve source metadata for ${ref}`);
	}
	const { config } = parseImageConfig(resolved.config);
	const name = formatReference(withDigest(parseReference(resolved.ref), resolved.digest));
	return {
		definition: image(name, { recordType: "frontend" }).marshal(),
		env: config?.Env ?? [],
		entrypoint: config?.Entrypoint,
		workingDir: config?.WorkingDir ?? "",
		labels: new Map(Object.entries(config?.Labels ?? {})),
	};
}

async function runImage(
	program: FrontendProgram,
	request: FrontendRequest,
	bridge: FrontendBridge,
): Promise<FrontendResult> {
	const { options, inputs, signal } = request;
	const { labels, definition } = program;
	const ref = await bridge.solve(definition, { evaluate: true, signal });
	checkCapabilities(labels.get("moby.buildkit.frontend.caps"), options["frontend.caps"], inputs.size > 0);
	const isOffline = parseGoBool(labels.get("moby.buildkit.frontend.network.none") ?? "") === true;
	await using container = await bridge.newContainer(
		{
			mounts: [
				{
					mount: {
						kind: "bind",
						dest: "/",
						selector: "",
						readonly: false,
						contentCache: "default",
						resultId: "",
					},
					ref,
				},
			],
			directories: [
				{
					dest: "/run/config/buildkit/metadata",
					files: new Map([["frontend.bin", encodeDefinition(definition)]]),
				},
			],
			network: isOffline ? "none" : "sandbox",
			platform: undefined,
			extraHosts: [],
			hostname: "",
		},
		{ signal },
	);
	return await runFrontend(container, bridge, {
		args: program.entrypoint ?? ["/run"],
		env: [...program.env, ...frontendEnvironment(request, bridge)],
		cwd: program.workingDir || "/",
		inputs,
		signal,
	});
}

/** The image must have what the client needs. */
function checkCapabilities(has: string | undefined, wanted: string | undefined, hasInputs: boolean): void {
	const known = new Set(capabilityNames(has));
	const needed = [...capabilityNames(wanted), ...(hasInputs ? ["moby.buildkit.frontend.inputs"] : [])];
	const missing = needed.find((name) => !known.has(name));
	if (missing !== undefined) {
		throw new SlipwayError("unimplemented", `unsupported frontend capability ${missing}`, {
			details: [errorDetails.frontendCapability(missing)],
		});
	}
}

function capabilityNames(list = ""): readonly string[] {
	return list.split(",").flatMap((each) => each.split("+", 1).filter((name) => name !== ""));
}

/** What a frontend's program learns by its environment. */
function frontendEnvironment(
	{ options, sessionId }: FrontendRequest,
	{ worker, platforms }: FrontendBridge,
): readonly string[] {
	const workers = [
		{
			id: worker.id,
			labels: Object.fromEntries(worker.labels),
			platforms,
			gcPolicy: null,
			buildkitVersion: { package: "", version: "", revision: "" },
			cdiDevices: null,
		},
	];
	return [
		...Object.entries(options).map(([key, value], index) => `BUILDKIT_FRONTEND_OPT_${index}=${key}=${value}`),
		`BUILDKIT_SESSION_ID=${sessionId}`,
		`BUILDKIT_WORKERS=${JSON.stringify(workers)}`,
		"BUILDKIT_EXPORTEDPRODUCT=buildkit",
	];
}
