import {
	canceled,
	findDetail,
	SlipwayError,
	type SourceFile,
	type SourceRange,
	wrap,
} from "../../errors/errors.ts";
import { formatPlatformAll, hostPlatform, normalizePlatform, type Platform } from "../../oci/platform.ts";
import { familiarReference, parseReference } from "../../oci/reference.ts";
import type {
	Frontend,
	FrontendBridge,
	FrontendRequest,
	FrontendResult,
	ResolvedImageConfig,
	ResolveImageRequest,
} from "../frontend.ts";
import { type BuiltPlatform, platformResult } from "../platform-result.ts";
import { answerConvert } from "./answer-convert.ts";
import { answerLint } from "./answer-lint.ts";
import { answerOutline } from "./answer-outline.ts";
import { answerTargets } from "./answer-targets.ts";
import { type Answer, answerResult, describeRequests, unsupportedRequest } from "./answers.ts";
import { createBuildContext, type DockerfileSource } from "./build-context.ts";
import { type ConvertedDockerfile, type ConvertOptions, convertDockerfile } from "./convert.ts";
import { detectSyntax } from "./directives.ts";
import { trimSpace } from "./go-text.ts";
import { writeImage } from "./image-draft.ts";
import { formatLintWarning, type LintWarning } from "./linter.ts";
import type { ContextServices } from "./named-context.ts";
import { withSource } from "./parser.ts";
import { type BuildSettings, parseSettings } from "./settings.ts";
import { settleAll } from "./settle-all.ts";

/** The frontend `dockerfile.v0`. */
export function createDockerfileFrontend(): Frontend {
	return { solve: solveDockerfile };
}

async function solveDockerfile(given: FrontendRequest, bridge: FrontendBridge): Promise<FrontendResult> {
	const { options } = given;
	const settings = parseSettings(options);
	const missing = missingAbility(options["frontend.caps"] ?? "");
	if (missing !== undefined && !missing.forward) {
		throw missing.error;
	}
	const scope = new AbortController();
	const request = { ...given, signal: AbortSignal.any([given.signal, scope.signal]) };
	const context = createBuildContext(request, bridge);
	const abort = (): void => scope.abort(canceled());
	const services: ContextServices = { request, bridge: withImageCache(bridge), context, abort };
	const source = await context.readDockerfile();
	const other = otherFrontend(options, source.file);
	if (other !== undefined) {
		return await forward(other, request, { bridge, file: source.file });
	}
	if (missing !== undefined) {
		throw missing.error;
	}
	const work: Work = { settings, services, source };
	const question = options["requestid"];
	if (question !== undefined) {
		return answerResult(await answer(question, work, given.signal));
	}
	if (settings.sbom !== undefined) {
		throw new SlipwayError("unimplemented", "the attestation sbom can't be made yet");
	}
	const targets = settings.targetPlatforms.length === 0 ? [undefined] : settings.targetPlatforms;
	const results = await settleAll(
		targets.map((platform, index) => convertPlatform(platform, { ...work, warns: index === 0 })),
		abort,
	);
	return platformResult(results, settings);
}

interface Work {
	readonly settings: BuildSettings;
	readonly services: ContextServices;
	readonly source: DockerfileSource;
}

/** Questions are about one platform: the builder's own. */
async function answer(
	question: string,
	{ settings, services, source }: Work,
	signal: AbortSignal,
): Promise<Answer> {
	const { file } = source;
	const convert = (more: Partial<ConvertOptions>): Promise<ConvertedDockerfile> =>
		convertDockerfile({
			settings,
			services,
			file,
			targetPlatform: undefined,
			onWarning: (warning) => warn(services.bridge, source, warning),
			...more,
		});
	switch (question) {
		case "frontend.subrequests.describe":
			return describeRequests();
		case "frontend.targets":
			return answerTargets(file);
		case "frontend.outline":
			return answerOutline((await convert({})).target, file.data);
		case "frontend.convertllb":
			return answerConvert((await convert({})).marshal());
		case "frontend.lint": {
			const warnings: LintWarning[] = [];
			let error: unknown;
			try {
				// Without a target there may be mistakes in any stage.
				const allStages = settings.target === "";
				await convert({ allStages, onWarning: (warning) => warnings.push(warning) });
			} catch (thrown) {
				signal.throwIfAborted();
				error = thrown;
			}
			return answerLint({ file, definition: source.definition, warnings, error });
		}
		default:
			throw unsupportedRequest(question);
	}
}

const abilities: ReadonlySet<string> = new Set([
	"moby.buildkit.frontend.inputs",
	"moby.buildkit.frontend.subrequests",
	"moby.buildkit.frontend.contexts",
	"moby.buildkit.frontend.gitquerystring",
]);

/**
 * What the client needs and this frontend has not. With `+forward` it is enough if the frontend has it that the
 * Dockerfile names, which is this one.
 */
function missingAbility(
	wanted: string,
): { readonly error: SlipwayError; readonly forward: boolean } | undefined {
	let last: { readonly error: SlipwayError; readonly forward: boolean } | undefined;
	for (const each of wanted === "" ? [] : wanted.split(",")) {
		const [name = ""] = each.split("+", 1);
		if (!abilities.has(name)) {
			const error = new SlipwayError("unimplemented", `unsupported frontend capability ${name}`);
			last = { error, forward: each.includes("+forward") };
			if (!last.forward) {
				return last;
			}
		}
	}
	return last;
}

const syntaxArg = "build-arg:BUILDKIT_SYNTAX";

interface OtherFrontend {
	readonly ref: string;
	/** The line that names it. */
	readonly cmdline: string;
	/** Undefined if a build argument names it. */
	readonly ranges: readonly SourceRange[] | undefined;
}

/**
 * `# syntax=` names the image of a frontend. All versions and channels of Docker's own are this frontend: nothing is
 * pulled for them.
 */
function otherFrontend(options: FrontendRequest["options"], file: SourceFile): OtherFrontend | undefined {
	// Whoever started this frontend has already looked.
	if (options["cmdline"] !== undefined) {
		return undefined;
	}
	const given = options[syntaxArg];
	if (given !== undefined) {
		const [ref = ""] = trimSpace(given).split(" ", 1);
		return isBuiltIn(ref, options) ? undefined : { ref, cmdline: given, ranges: undefined };
	}
	const directive = detectSyntax(file.data);
	return directive === undefined || isBuiltIn(directive.ref, options) ? undefined : directive;
}

/** Its answer is ours. */
async function forward(
	{ ref, cmdline, ranges }: OtherFrontend,
	{ options, inputs, signal }: FrontendRequest,
	{ bridge, file }: { readonly bridge: FrontendBridge; readonly file: SourceFile },
): Promise<FrontendResult> {
	try {
		return await bridge.solveFrontend(
			{ frontend: "gateway.v0", options: { ...options, cmdline, source: ref }, inputs, evaluate: false },
			{ signal },
		);
	} catch (error) {
		if (ranges === undefined) {
			throw wrap(error, `failed with ${syntaxArg} = ${cmdline}`);
		}
		throw findDetail(error, "source") === undefined ? withSource(error, file, ranges) : error;
	}
}

/** This frontend, unless the client puts another image in its place. */
function isBuiltIn(name: string, options: FrontendRequest["options"]): boolean {
	if (!isOwnFrontend(name)) {
		return false;
	}
	const familiar = familiarReference(parseReference(name)).replace(/:latest$/, "");
	return !Object.keys(options).some(
		(key) => key === `context:${familiar}` || key.startsWith(`context:${familiar}::`),
	);
}

/** Whether the image that is named is this frontend. */
export function isOwnFrontend(name: string): boolean {
	if (name === "dockerfile.v0") {
		return true;
	}
	try {
		const { domain, path } = parseReference(name);
		return domain === "docker.io" && (path === "docker/dockerfile" || path === "docker/dockerfile-upstream");
	} catch {
		return false;
	}
}

interface PlatformWork extends Work {
	/** Mistakes are the same for all platforms, so one of them reports. */
	readonly warns: boolean;
}

async function convertPlatform(
	targetPlatform: Platform | undefined,
	{ settings, services, source, warns }: PlatformWork,
): Promise<BuiltPlatform> {
	const converted = await convertDockerfile({
		settings,
		services,
		file: source.file,
		targetPlatform,
		onWarning: (warning) => {
			if (warns) {
				warn(services.bridge, source, warning);
			}
		},
	});
	const { image, target, epoch } = converted;
	const definition = converted.marshal();
	const platform = normalizePlatform(targetPlatform ?? hostPlatform());
	const { bridge, request } = services;
	return {
		id: formatPlatformAll(platform),
		platform: withImageVersion(platform, image.platform),
		ref:
			definition.ops.length === 0
				? undefined
				: await bridge.solve(definition, {
						evaluate: false,
						signal: request.signal,
						cacheImports: settings.cacheImports,
					}),
		imageConfig: writeImage(image),
		baseImageConfig: target.baseImage === undefined ? undefined : writeImage(target.baseImage),
		epoch,
	};
}

/** Windows images run on one version only, which the base image knows. */
function withImageVersion(platform: Platform, image: Platform): Platform {
	if (platform.os !== "windows" || image.os !== platform.os) {
		return platform;
	}
	const version = platform["os.version"] ?? image["os.version"];
	const features = platform["os.features"] ?? image["os.features"];
	return normalizePlatform({
		...platform,
		...(version === undefined ? {} : { "os.version": version }),
		...(features === undefined ? {} : { "os.features": features }),
	});
}

function warn(bridge: FrontendBridge, { file, vertex }: DockerfileSource, warning: LintWarning): void {
	const { filename, data, language } = file;
	bridge.warn({
		vertex,
		level: 1,
		short: formatLintWarning(warning),
		detail: [warning.description],
		...(warning.url === "" ? {} : { url: warning.url }),
		source: { filename, data, ...(language === undefined ? {} : { language }) },
		ranges: warning.ranges,
	});
}

/** Asks for each image once, also if that failed. */
function withImageCache(bridge: FrontendBridge): FrontendBridge {
	const asked = new Map<string, Promise<ResolvedImageConfig>>();
	const resolveImage = (
		request: ResolveImageRequest,
		options: { readonly signal: AbortSignal },
	): Promise<ResolvedImageConfig> => {
		const key = JSON.stringify(request);
		let answer = asked.get(key);
		if (answer === undefined) {
			answer = bridge.resolveImage(request, options).catch((error: unknown) => {
				throw wrap(error, `failed to resolve source metadata for ${request.ref}`);
			});
			asked.set(key, answer);
		}
		return answer;
	};
	return { ...bridge, resolveImage };
}
