import type { Descriptor } from "./descriptor.ts";
import { normalizePlatform, type Platform } from "./platform.ts";

/**
 * Which platforms serve a wanted one, and which of two serves it better. The rules are containerd's: its platforms
 * package, `Only`, `OnlyStrict`, `Ordered` and `Any`.
 */
export interface PlatformMatcher {
	matches(platform: Platform): boolean;
	/** Negative if `a` serves better than `b`, 0 if neither is better; for a stable sort. */
	compare(a: Platform, b: Platform): number;
}

/**
 * Accepts the platform and what its CPU also runs, best first: lower levels of amd64 and then 386; lower versions of
 * arm; lower versions of arm64 and then arm.
 */
export function platformMatcher(platform: Platform): PlatformMatcher {
	return orderedMatcher(platformVector(normalizePlatform(platform)));
}

/** Accepts the platform only, in any of its spellings. */
export function strictPlatformMatcher(platform: Platform): PlatformMatcher {
	return orderedMatcher([platform]);
}

/** Accepts any of the platforms, the earlier ones before the later ones. */
export function orderedMatcher(platforms: readonly Platform[]): PlatformMatcher {
	const tests = platforms.map(exactMatcher);
	const less = (a: Platform, b: Platform): boolean => {
		for (const test of tests) {
			const matchesA = test(a);
			const matchesB = test(b);
			if (matchesA && !matchesB) {
				return true;
			}
			if (matchesA && featureCount(a) !== featureCount(b)) {
				return featureCount(a) > featureCount(b);
			}
			if (matchesA || matchesB) {
				return false;
			}
		}
		return featureCount(a) + featureCount(b) > 0 && less(withoutFeatures(a), withoutFeatures(b));
	};
	return matcher(tests, less);
}

/** Accepts any of the platforms, none before another. */
export function anyMatcher(platforms: readonly Platform[]): PlatformMatcher {
	const tests = platforms.map(exactMatcher);
	const some = (platform: Platform): boolean => tests.some((test) => test(platform));
	const less = (a: Platform, b: Platform): boolean => {
		const matchesA = some(a);
		const matchesB = some(b);
		if (matchesA && matchesB) {
			return featureCount(a) > featureCount(b);
		}
		if (!matchesA && !matchesB && featureCount(a) + featureCount(b) > 0) {
			return less(withoutFeatures(a), withoutFeatures(b));
		}
		return matchesA && !matchesB;
	};
	return matcher(tests, less);
}

/**
 * The entries of an index that may serve, best first; those that do not say their platform come last, because their
 * config has to be read to know. The attestations of an image say `unknown/unknown` and fall out.
 */
export function selectByPlatform(
	entries: readonly Descriptor[],
	wanted: PlatformMatcher,
): readonly Descriptor[] {
	return entries
		.filter((entry) => entry.platform === undefined || wanted.matches(entry.platform))
		.sort((a, b) => {
			if (a.platform === undefined || b.platform === undefined) {
				return Number(a.platform === undefined) - Number(b.platform === undefined);
			}
			return wanted.compare(a.platform, b.platform);
		});
}

type Test = (platform: Platform) => boolean;

function matcher(tests: readonly Test[], less: (a: Platform, b: Platform) => boolean): PlatformMatcher {
	return {
		matches: (platform) => tests.some((test) => test(platform)),
		compare: (a, b) => (less(a, b) ? -1 : less(b, a) ? 1 : 0),
	};
}

function featureCount(platform: Platform): number {
	return platform["os.features"]?.length ?? 0;
}

function withoutFeatures({ "os.features": _, ...rest }: Platform): Platform {
	return rest;
}

/** Same OS, architecture and variant, a compatible version of Windows, and no feature that is not offered. */
function exactMatcher(wanted: Platform): Test {
	const own = normalizePlatform(wanted);
	const offered = new Set(own["os.features"]);
	const isWindows = own.os === "windows";
	const version = parseWindowsVersion(own["os.version"]);
	return (platform) => {
		const other = normalizePlatform(platform);
		return (
			own.os === other.os &&
			own.architecture === other.architecture &&
			own.variant === other.variant &&
			(!isWindows || windowsRuns(version, platform["os.version"])) &&
			// Older images name the feature win32k, which every Windows has.
			(other["os.features"] ?? []).every(
				(feature) => offered.has(feature) || (isWindows && feature === "win32k"),
			)
		);
	};
}

function platformVector(platform: Platform): readonly Platform[] {
	const { variant, ...base } = platform;
	const as = (architecture: string, withVariant?: string): Platform => ({
		...base,
		architecture,
		...(withVariant === undefined ? {} : { variant: withVariant }),
	});
	switch (platform.architecture) {
		case "amd64":
			return [platform, ...versionsBelow(variant, 1).map((v) => as("amd64", v)), as("386")];
		case "arm":
			return [platform, ...versionsBelow(variant, 5).map((v) => as("arm", v))];
		case "arm64": {
			const own = arm64Versions(variant ?? "v8");
			// Every 64-bit version runs 32-bit programs of ARMv8.
			return own.length === 0
				? []
				: [
						...own.map((v) => as("arm64", v)),
						as("arm", "v8"),
						...versionsBelow("v8", 5).map((v) => as("arm", v)),
					];
		}
		default:
			return [platform];
	}
}

/** `v4` and lowest 1: v3, v2, v1. */
function versionsBelow(variant: string | undefined, lowest: number): readonly string[] {
	const version = /^v?(\d+)$/.exec(variant ?? "")?.[1];
	const above = Math.min(version === undefined ? 0 : Number(version), 99);
	return Array.from({ length: Math.max(above - lowest, 0) }, (_, i) => `v${above - 1 - i}`);
}

/** An arm64 version and those below it; v9.N contains v8.(N+5). Unknown versions have none. */
function arm64Versions(variant: string): readonly string[] {
	const parsed = /^v([89])(?:\.(\d))?$/.exec(variant);
	if (parsed === null) {
		return [];
	}
	const major = Number(parsed[1]);
	const minor = Number(parsed[2] ?? "0");
	if (major === 9 && minor > 7) {
		return [];
	}
	const down = (of: number, from: number): string[] =>
		Array.from({ length: from + 1 }, (_, i) => (from - i === 0 ? `v${of}` : `v${of}.${from - i}`));
	return major === 8 ? down(8, minor) : [...down(9, minor), ...down(8, Math.min(minor + 5, 9))];
}

interface WindowsVersion {
	readonly major: number;
	readonly minor: number;
	readonly build: number;
}

function parseWindowsVersion(text: string | undefined): WindowsVersion {
	const [, major, minor, build] = /^(\d+)\.(\d+)\.(\d+)(?:\.|$)/.exec(text ?? "") ?? [];
	const version = { major: Number(major ?? 0), minor: Number(minor ?? 0), build: Number(build ?? 0) };
	const fits = version.major <= 255 && version.minor <= 255 && version.build <= 65535;
	return fits ? version : { major: 0, minor: 0, build: 0 };
}

/** Builds of the long-term releases since which a host runs the images of the release before it. */
const stableReleases = [20348, 26100] as const;

/** Windows containers share the host's kernel; see Microsoft's "Windows container version compatibility". */
function windowsRuns(host: WindowsVersion, imageVersion: string | undefined): boolean {
	const isUnstated = host.major === 0 && host.minor === 0 && host.build === 0;
	if (isUnstated || imageVersion === undefined || imageVersion === "") {
		return true;
	}
	const image = parseWindowsVersion(imageVersion);
	if (host.major !== image.major || host.minor !== image.minor) {
		return false;
	}
	if (host.build < stableReleases[0]) {
		return host.build === image.build;
	}
	const oldest = stableReleases.findLast((build) => host.build > build) ?? stableReleases[0];
	return oldest <= image.build && image.build <= host.build;
}
