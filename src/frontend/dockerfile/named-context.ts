import { SlipwayError, wrap } from "../../errors/errors.ts";
import { deferredOutput, type Output } from "../../llb/llb.ts";
import { http, image, local, ociLayout } from "../../llb/sources.ts";
import { type State, scratch, stateOf } from "../../llb/state.ts";
import { type Digest, parseDigest } from "../../oci/digest.ts";
import { parseImageConfig } from "../../oci/image-config.ts";
import { formatPlatformAll, hostPlatform, normalizePlatform, type Platform } from "../../oci/platform.ts";
import {
	familiarReference,
	formatReference,
	parseReference,
	withDefaultTag,
	withDigest,
} from "../../oci/reference.ts";
import { parseIgnoreFile } from "../../patterns/ignore-file.ts";
import type { FrontendBridge, FrontendRequest } from "../frontend.ts";
import { type BuildContext, gitContext, readingDefinition } from "./build-context.ts";
import { equalFold } from "./go-text.ts";
import { hostKeysOf } from "./host-keys.ts";
import { type ImageDraft, readImage } from "./image-draft.ts";

/** A context that the client puts in place of a stage or an image: `context:<name>[::<platform>]`. */
export interface NamedContext {
	load(): Promise<LoadedContext>;
}

export interface LoadedContext {
	readonly state: State;
	/** Absent for what is only files. */
	readonly image: ImageDraft | undefined;
}

export interface NamedContextOptions {
	/** Of whoever uses it. */
	readonly platform: Platform | undefined;
	readonly resolveMode: "default" | "pull" | "local";
	/** Which paths of a directory are needed, asked when the graph is done; empty for all. */
	readonly followPaths: () => readonly string[];
}

export interface ContextServices {
	readonly request: FrontendRequest;
	readonly bridge: FrontendBridge;
	readonly context: BuildContext;
	/** Ends all that is still waited for, because the whole has failed. */
	readonly abort: () => void;
}

/** Undefined if the client gave no context of the name. Throws `invalid-argument` for a name that can't be one. */
export function findNamedContext(
	name: string,
	services: ContextServices,
	options: NamedContextOptions,
): NamedContext | undefined {
	if (equalFold(name, "scratch") || equalFold(name, "context")) {
		return undefined;
	}
	let familiar: string;
	try {
		familiar = familiarReference(parseReference(name)).replace(/:latest$/, "");
	} catch (error) {
		throw wrap(error, `invalid context name ${name}`);
	}
	const platform = formatPlatformAll(normalizePlatform(options.platform ?? hostPlatform()));
	for (const key of [`${familiar}::${platform}`, familiar]) {
		const value = services.request.options[`context:${key}`];
		if (value !== undefined) {
			return { load: () => loadContext({ value, name: familiar, key }, services, options) };
		}
	}
	return undefined;
}

interface ContextSpecifier {
	readonly value: string;
	readonly name: string;
	/** The name, with the platform if the option has one. */
	readonly key: string;
}

async function loadContext(
	specifier: ContextSpecifier,
	services: ContextServices,
	options: NamedContextOptions,
): Promise<LoadedContext> {
	const { value, key } = specifier;
	const repository = (): Promise<State | undefined> =>
		gitContext(value, hostKeysOf(services.bridge, services.request.signal));
	const colon = value.indexOf(":");
	if (colon < 0) {
		throw invalid(`invalid context specifier ${value} for ${key}`);
	}
	const scheme = value.slice(0, colon);
	const rest = value.slice(colon + 1);
	switch (scheme.startsWith("git@") ? "git" : scheme) {
		case "docker-image":
			return loadImage(specifier, rest.replace(/^\/\//, ""), services, options);
		case "oci-layout":
			return loadOciLayout(specifier, rest.replace(/^\/\//, ""), services, options);
		case "git": {
			const state = await repository();
			if (state === undefined) {
				throw invalid(`invalid git context ${value}`);
			}
			return { state, image: undefined };
		}
		case "http":
		case "https": {
			const state =
				(await repository()) ?? http(value, { filename: "context", name: `[context ${key}] ${value}` });
			return { state, image: undefined };
		}
		case "local":
			return { state: await loadLocal(specifier, rest, services, options), image: undefined };
		case "input":
			return loadInput(specifier, rest, services);
		default:
			throw invalid(`unsupported context source ${scheme} for ${key}`);
	}
}

async function loadImage(
	{ key }: ContextSpecifier,
	name: string,
	{ request, bridge }: ContextServices,
	{ platform, resolveMode }: NamedContextOptions,
): Promise<LoadedContext> {
	if (name === "scratch") {
		return { state: scratch(), image: undefined };
	}
	const resolved = await bridge.resolveImage(
		{
			ref: formatReference(withDefaultTag(parseReference(name))),
			platform,
			mode: resolveMode,
			logName: `[context ${key}] load metadata for ${name}`,
		},
		{ signal: request.signal },
	);
	const state = image(resolved.ref, {
		name: `[context ${key}] ${name}`,
		...(platform === undefined ? {} : { platform }),
	});
	return withImage(state, resolved.config);
}

function withImage(state: State, config: Uint8Array): LoadedContext {
	return {
		state: state.withImageConfig(parseImageConfig(config)),
		image: readImage(config),
	};
}

async function loadOciLayout(
	{ name, key }: ContextSpecifier,
	text: string,
	{ request, bridge }: ContextServices,
	{ platform }: NamedContextOptions,
): Promise<LoadedContext> {
	const { storeId, digest } = parseLayoutReference(text);
	// The layout's name is only the client's handle; messages show the context's name.
	const ref = formatReference(withDigest(parseReference(name), digest));
	const resolved = await bridge.resolveImage(
		{
			ref,
			platform,
			mode: "default",
			logName: `[context ${key}] load metadata for ${ref}`,
			ociLayout: { sessionId: request.sessionId, storeId },
		},
		{ signal: request.signal },
	);
	const state = ociLayout(ref, {
		name: `[context ${key}] OCI load from client`,
		sessionId: request.sessionId,
		storeId,
		...(platform === undefined ? {} : { platform }),
	});
	try {
		return withImage(state, resolved.config);
	} catch (error) {
		throw wrap(error, "could not parse oci-layout image config");
	}
}

/** `name[:tag]@digest`, where the name need not be a full one. */
function parseLayoutReference(text: string): { readonly storeId: string; readonly digest: Digest } {
	const at = text.indexOf("@");
	const named = at < 0 ? text : text.slice(0, at);
	const [, storeId] =
		/^((?:[a-zA-Z0-9.:_-]+\/)*[a-z0-9]+(?:[a-z0-9._-]*[a-z0-9])?)(?::\w[\w.-]{0,127})?$/.exec(named) ?? [];
	if (storeId === undefined) {
		throw invalid(`could not parse oci-layout reference ${JSON.stringify(text)}: invalid reference format`);
	}
	if (at < 0) {
		throw invalid(`oci-layout reference ${JSON.stringify(text)} has no digest`);
	}
	try {
		return { storeId, digest: parseDigest(text.slice(at + 1)) };
	} catch (error) {
		throw wrap(error, `could not parse oci-layout reference ${JSON.stringify(text)}`);
	}
}

const ignoreFileName = ".dockerignore";

async function loadLocal(
	{ key }: ContextSpecifier,
	name: string,
	{ request, bridge, context }: ContextServices,
	{ followPaths }: NamedContextOptions,
): Promise<State> {
	const { options, signal } = request;
	const sessionId = context.sessionOf(name);
	const ref = await bridge.solve(
		readingDefinition(
			local(name, {
				sessionId,
				followPaths: [ignoreFileName],
				sharedKeyHint: `context:${key}-${ignoreFileName}`,
				name: `[context ${key}] load ${ignoreFileName}`,
				differ: { kind: "none", required: false },
			}),
		),
		{ evaluate: true, signal },
	);
	let excludePatterns: readonly string[] = [];
	try {
		excludePatterns = parseIgnoreFile(await ref.readFile(ignoreFileName, { signal }));
	} catch {
		signal.throwIfAborted();
		// Most directories have none.
	}
	const hint = options[`sharedkey:localdir:${key}`] ?? "";
	let output: Output | undefined;
	return stateOf(
		deferredOutput(() => {
			output ??= local(name, {
				name: `[context ${key}] load from client`,
				sessionId,
				sharedKeyHint: `context:${key}-${hint}`,
				excludePatterns,
				followPaths: followPaths(),
			}).output;
			if (output === undefined) {
				throw new SlipwayError("internal", `the local source ${JSON.stringify(name)} has no output`);
			}
			return output;
		}),
	);
}

function loadInput(
	{ key }: ContextSpecifier,
	name: string,
	{ request, context }: ContextServices,
): LoadedContext {
	const state = context.input(name);
	if (state === undefined) {
		throw invalid(`invalid input ${name} for ${key}`);
	}
	const metadata = request.options[`input-metadata:${name}`];
	if (metadata === undefined) {
		return { state, image: undefined };
	}
	let config: unknown;
	try {
		const fields = JSON.parse(metadata) as unknown;
		config = (fields as Readonly<Record<string, unknown>> | null)?.["containerimage.config"];
	} catch (error) {
		throw wrap(error, `failed to parse input metadata ${metadata}`, { code: "invalid-argument" });
	}
	if (config === undefined || config === null) {
		return { state, image: undefined };
	}
	if (typeof config !== "string") {
		throw invalid(`failed to parse input metadata ${metadata}: the image config is no text`);
	}
	const bytes = Buffer.from(config, "base64");
	const withConfig = state.withImageConfig(parseImageConfig(bytes));
	try {
		return { state: withConfig, image: readImage(bytes) };
	} catch (error) {
		throw wrap(error, `failed to parse image config for ${key}`);
	}
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
