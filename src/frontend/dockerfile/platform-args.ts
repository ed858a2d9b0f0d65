import {
	formatPlatform,
	formatPlatformAll,
	hostPlatform,
	normalizePlatform,
	type Platform,
	parsePlatform,
} from "../../oci/platform.ts";
import type { Environment } from "./shell-words.ts";

/** For which platforms a conversion is. */
export interface PlatformChoice {
	/** Where the builder runs; the first is the one that ARGs name. */
	readonly build: readonly Platform[];
	readonly target: Platform;
	/** Nobody asked for the target: base images may decide otherwise. */
	readonly implicit: boolean;
}

export function choosePlatforms(build: readonly Platform[], target: Platform | undefined): PlatformChoice {
	const known = build.length === 0 ? [hostPlatform()] : build;
	return { build: known, target: target ?? known[0] ?? hostPlatform(), implicit: target === undefined };
}

/** The ARGs that are always there before the first FROM; build arguments of the same name win. */
export function platformArgs(
	{ build, target }: PlatformChoice,
	buildArgs: ReadonlyMap<string, string>,
	stage: string,
): Map<string, string> {
	const own = build[0] ?? target;
	const args: readonly (readonly [string, string])[] = [
		["BUILDPLATFORM", formatPlatform(own)],
		["BUILDOS", own.os],
		["BUILDOSVERSION", own["os.version"] ?? ""],
		["BUILDARCH", own.architecture],
		["BUILDVARIANT", own.variant ?? ""],
		["TARGETPLATFORM", formatPlatformAll(target)],
		["TARGETOS", target.os],
		["TARGETOSVERSION", target["os.version"] ?? ""],
		["TARGETARCH", target.architecture],
		["TARGETVARIANT", target.variant ?? ""],
		["TARGETSTAGE", stage === "" ? "default" : stage],
	];
	return new Map(args.map(([key, value]) => [key, buildArgs.get(key) ?? value]));
}

/** `linux/amd64`, with `->arm64` behind where the environment says that the stage compiles for another platform. */
export function formatStagePlatform(platform: Platform, env: Environment): string {
	const all = formatPlatformAll(platform);
	const wanted = platformOfEnv(env);
	if (wanted === undefined) {
		return all;
	}
	const target = normalizePlatform({
		...wanted,
		os: wanted.os === "" ? platform.os : wanted.os,
		architecture: wanted.architecture === "" ? platform.architecture : wanted.architecture,
	});
	if (target.os !== platform.os) {
		return `${all}->${formatPlatformAll(target)}`;
	}
	if (target.architecture === platform.architecture) {
		return all;
	}
	return `${all}->${target.architecture}${target.variant === undefined ? "" : `/${target.variant}`}`;
}

function platformOfEnv(env: Environment): Platform | undefined {
	let found: { architecture: string; os: string; variant?: string } | undefined;
	for (const key of env.keys()) {
		const value = env.get(key) ?? "";
		switch (key) {
			case "TARGETPLATFORM":
				try {
					return parsePlatform(value);
				} catch {
					// Whatever else the variable is for.
				}
				break;
			case "TARGETOS":
				found = { architecture: "", ...found, os: value };
				break;
			case "TARGETARCH":
				found = { os: "", ...found, architecture: value };
				break;
			case "TARGETVARIANT":
				found = { architecture: "", os: "", ...found, ...(value === "" ? {} : { variant: value }) };
				break;
		}
	}
	return found;
}

/** The platform that the image has, if the builder runs it; otherwise the one that was wanted. */
export function detectPlatform(image: Platform, target: Platform, supported: readonly Platform[]): Platform {
	const same = (platform: Platform): boolean =>
		platform.os === image.os && platform.architecture === image.architecture;
	return same(target) ? target : (supported.find(same) ?? target);
}
