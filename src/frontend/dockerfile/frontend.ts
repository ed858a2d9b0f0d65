import { SlipwayError } from "../../errors/errors.ts";
import { formatPlatformAll, hostPlatform, normalizePlatform, type Platform } from "../../oci/platform.ts";
import type {
	Frontend,
	FrontendBridge,
	FrontendPlatform,
	FrontendRequest,
	FrontendResult,
	ResolvedImageConfig,
	ResolveImageRequest,
} from "../frontend.ts";
import { createBuildContext, type DockerfileSource } from "./build-context.ts";
import { convertDockerfile } from "./convert.ts";
import { writeImage } from "./image-draft.ts";
import { formatLintWarning, type LintWarning } from "./linter.ts";
import type { ContextServices } from "./named-context.ts";
import { type BuildSettings, parseSettings } from "./settings.ts";

/** The frontend `dockerfile.v0`. */
export function createDockerfileFrontend(): Frontend {
	return { solve: solveDockerfile };
}

async function solveDockerfile(request: FrontendRequest, bridge: FrontendBridge): Promise<FrontendResult> {
	const settings = parseSettings(request.options);
	const context = createBuildContext(request, bridge);
	const services: ContextServices = { request, bridge: withImageCache(bridge), context };
	const source = await context.readDockerfile();
	const targets = settings.targetPlatforms.length === 0 ? [undefined] : settings.targetPlatforms;
	const results = await Promise.all(
		targets.map((platform, index) =>
			convertPlatform(platform, { settings, services, source, warns: index === 0 }),
		),
	);
	const metadata: Record<string, Uint8Array> = {};
	for (const { result, epoch } of results) {
		if (epoch !== undefined) {
			const name = settings.multiPlatform ? `source.date.epoch/${result.id}` : "source.date.epoch";
			metadata[name] = new TextEncoder().encode(String(epoch));
		}
	}
	return {
		platforms: results.map(({ result }) => result),
		multiPlatform: settings.multiPlatform,
		metadata,
	};
}

interface PlatformServices {
	readonly settings: BuildSettings;
	readonly services: ContextServices;
	readonly source: DockerfileSource;
	/** Mistakes are the same for all platforms, so one of them reports. */
	readonly warns: boolean;
}

async function convertPlatform(
	targetPlatform: Platform | undefined,
	{ settings, services, source, warns }: PlatformServices,
): Promise<{ readonly result: FrontendPlatform; readonly epoch: number | undefined }> {
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
	return {
		result: {
			id: formatPlatformAll(platform),
			platform: withImageVersion(platform, image.platform),
			definition: definition.ops.length === 0 ? undefined : definition,
			imageConfig: writeImage(image),
			baseImageConfig: target.baseImage === undefined ? undefined : writeImage(target.baseImage),
		},
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
			answer = bridge.resolveImage(request, options);
			asked.set(key, answer);
		}
		return answer;
	};
	return {
		platforms: bridge.platforms,
		solve: (definition, options) => bridge.solve(definition, options),
		warn: (warning) => bridge.warn(warning),
		resolveImage,
	};
}

/** A graph of another frontend's image is not read yet. */
export function otherFrontend(ref: string): SlipwayError {
	return new SlipwayError(
		"unimplemented",
		`frontend image ${ref} can't be run: only the built-in Dockerfile frontend exists`,
	);
}
