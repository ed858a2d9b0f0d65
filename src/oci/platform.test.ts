import assert from "node:assert/strict";
import { test } from "node:test";
import { amd64Level, armVariant } from "./cpu.ts";
import type { Descriptor } from "./descriptor.ts";
import { sha256 } from "./digest.ts";
import { hostPlatforms } from "./host-platforms.ts";
import {
	formatPlatform,
	formatPlatformAll,
	hostPlatform,
	normalizePlatform,
	type Platform,
	parsePlatform,
} from "./platform.ts";
import {
	anyMatcher,
	orderedMatcher,
	platformMatcher,
	selectByPlatform,
	strictPlatformMatcher,
} from "./platform-match.ts";

// Expected values of this file were compared with containerd/platforms v1.0.0-rc, as BuildKit vendors it.

test("parsePlatform: specifiers and their two forms", () => {
	const cases: readonly (readonly [text: string, formatted: string, normalized: string])[] = [
		["linux/amd64", "linux/amd64", "linux/amd64"],
		["linux/x86_64", "linux/amd64", "linux/amd64"],
		["linux/amd64/v1", "linux/amd64", "linux/amd64"],
		["linux/amd64/v3", "linux/amd64/v3", "linux/amd64/v3"],
		["linux/aarch64", "linux/arm64", "linux/arm64"],
		["linux/arm64/v8", "linux/arm64/v8", "linux/arm64"],
		["linux/arm64/v9.0", "linux/arm64/v9", "linux/arm64/v9"],
		["linux/arm", "linux/arm", "linux/arm/v7"],
		["linux/armhf", "linux/arm", "linux/arm/v7"],
		["linux/armel", "linux/arm/v6", "linux/arm/v6"],
		["linux/arm/6", "linux/arm/v6", "linux/arm/v6"],
		["Linux/I386", "linux/386", "linux/386"],
		["macos/arm64", "darwin/arm64", "darwin/arm64"],
		["foo/bar", "foo/bar", "foo/bar"],
	];
	for (const [text, formatted, normalized] of cases) {
		const platform = parsePlatform(text);
		assert.equal(formatPlatform(platform), formatted, text);
		assert.equal(formatPlatform(normalizePlatform(platform)), normalized, text);
	}
});

test("parsePlatform: version and features of the OS", () => {
	const platform = parsePlatform("windows(10.0.17763+win32k+a%2Fb)/amd64");
	assert.deepEqual(platform, {
		architecture: "amd64",
		os: "windows",
		"os.version": "10.0.17763",
		"os.features": ["win32k", "a/b"],
	});
	assert.equal(formatPlatform(platform), "windows/amd64");
	assert.equal(formatPlatformAll(platform), "windows(10.0.17763+a%2Fb+win32k)/amd64");
});

test("parsePlatform: what is missing comes from this machine", () => {
	assert.equal(parsePlatform("linux").architecture, hostPlatform().architecture);
	assert.equal(parsePlatform("riscv64").os, process.platform);
});

test("parsePlatform: messages", () => {
	const cases: Readonly<Record<string, string>> = {
		"linux/*": '"linux/*": wildcards not yet supported: invalid argument',
		"": '"" is an invalid OS component of "": OSAndVersion specifier component must match "^([A-Za-z0-9_-]+)(?:\\\\(([A-Za-z0-9_.%-]*)((?:\\\\+[A-Za-z0-9_.%-]+)*)\\\\))?$": invalid argument',
		"linux/a b":
			'"a b" is an invalid component of "linux/a b": platform specifier component must match "^[A-Za-z0-9_.-]+$": invalid argument',
		"linux/":
			'"" is an invalid component of "linux/": platform specifier component must match "^[A-Za-z0-9_.-]+$": invalid argument',
		nothing: '"nothing": unknown operating system or architecture: invalid argument',
		"a/b/c/d": '"a/b/c/d": cannot parse platform specifier: invalid argument',
		"a/b/c/d/e":
			'"d/e" is an invalid component of "a/b/c/d/e": platform specifier component must match "^[A-Za-z0-9_.-]+$": invalid argument',
		"linux(%zz)/arm": '"linux(%zz)/arm" has an invalid OS version "%zz": invalid URL escape "%zz"',
		"linux(+%z)/arm":
			'"linux(+%z)/arm" has invalid OS features: invalid os feature "%z": invalid URL escape "%z"',
	};
	for (const [text, message] of Object.entries(cases)) {
		assert.throws(() => parsePlatform(text), { code: "invalid-argument", message });
	}
	assert.equal(formatPlatform({ os: "", architecture: "arm" }), "unknown");
});

function accepted(wanted: string, offers: readonly string[]): readonly string[] {
	const matcher = platformMatcher(parsePlatform(wanted));
	return offers
		.map(parsePlatform)
		.filter((offer) => matcher.matches(offer))
		.sort(matcher.compare)
		.map((offer) => formatPlatform(normalizePlatform(offer)));
}

test("platformMatcher: what a CPU runs, best first", () => {
	const offers = [
		"linux/386",
		"linux/amd64",
		"linux/amd64/v2",
		"linux/amd64/v3",
		"linux/arm/v5",
		"linux/arm/v7",
		"linux/arm/v6",
		"linux/arm64",
		"linux/arm64/v8.2",
		"linux/arm64/v9",
		"windows/amd64",
	];
	assert.deepEqual(accepted("linux/amd64", offers), ["linux/amd64", "linux/386"]);
	assert.deepEqual(accepted("linux/amd64/v3", offers), [
		"linux/amd64/v3",
		"linux/amd64/v2",
		"linux/amd64",
		"linux/386",
	]);
	assert.deepEqual(accepted("linux/arm/v6", offers), ["linux/arm/v6", "linux/arm/v5"]);
	assert.deepEqual(accepted("linux/arm64", offers), [
		"linux/arm64",
		"linux/arm/v7",
		"linux/arm/v6",
		"linux/arm/v5",
	]);
	assert.deepEqual(accepted("linux/arm64/v9", offers), [
		"linux/arm64/v9",
		"linux/arm64/v8.2",
		"linux/arm64",
		"linux/arm/v7",
		"linux/arm/v6",
		"linux/arm/v5",
	]);
	assert.deepEqual(accepted("linux/arm64/v8.11", offers), []);
	assert.deepEqual(accepted("linux/s390x", offers), []);
});

test("strict, ordered and any matchers", () => {
	const amd64 = parsePlatform("linux/amd64");
	const x386 = parsePlatform("linux/386");
	assert.equal(strictPlatformMatcher(amd64).matches(x386), false);
	assert.equal(
		strictPlatformMatcher(parsePlatform("linux/arm64")).matches(parsePlatform("linux/arm64/v8")),
		true,
	);
	assert.deepEqual([amd64, x386].sort(orderedMatcher([x386, amd64]).compare), [x386, amd64]);
	assert.equal(anyMatcher([amd64, x386]).compare(amd64, x386), 0);
});

test("platformMatcher: versions and features of the OS", () => {
	const windows = (version: string, ...features: string[]): Platform => ({
		architecture: "amd64",
		os: "windows",
		...(version === "" ? {} : { "os.version": version }),
		...(features.length === 0 ? {} : { "os.features": features }),
	});
	const runs = (host: string, image: string): boolean =>
		platformMatcher(windows(host)).matches(windows(image));
	assert.equal(runs("10.0.17763.1", "10.0.17763.4000"), true);
	assert.equal(runs("10.0.17763", "10.0.20348"), false);
	assert.equal(runs("10.0.26100", "10.0.20348"), true);
	assert.equal(runs("10.0.26100", "10.0.17763"), false);
	assert.equal(runs("10.0.20348", "11.0.20348"), false);
	assert.equal(runs("10.0.20348", ""), true);
	assert.equal(platformMatcher(windows("", "a")).matches(windows("", "a", "win32k")), true);
	assert.equal(platformMatcher(windows("", "a")).matches(windows("", "b")), false);
	const both = platformMatcher(windows("", "a", "b"));
	assert.ok(both.compare(windows("", "a", "b"), windows("", "a")) < 0);
});

test("selectByPlatform: best entry first, entries without a platform last", () => {
	const entry = (name: string, platform?: string): Descriptor => ({
		mediaType: "x",
		digest: sha256(name),
		size: 1,
		...(platform === undefined ? {} : { platform: parsePlatform(platform) }),
	});
	const entries = [
		entry("silent"),
		entry("386", "linux/386"),
		entry("amd64", "linux/amd64"),
		entry("attestation", "unknown/unknown"),
		entry("arm", "linux/arm"),
	];
	const chosen = selectByPlatform(entries, platformMatcher(parsePlatform("linux/amd64")));
	assert.deepEqual(
		chosen.map(({ digest }) => digest),
		["amd64", "386", "silent"].map(sha256),
	);
});

test("amd64Level: highest level whose flags are all there", () => {
	const v2 = "pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm";
	const v3 = `${v2} fma movbe xsave avx f16c bmi1 avx2 bmi2 abm`;
	assert.equal(amd64Level(""), 1);
	assert.equal(amd64Level("flags\t\t: fpu sse2\n"), 1);
	assert.equal(amd64Level(`processor\t: 0\nflags\t\t: ${v2}\n`), 2);
	assert.equal(amd64Level(`flags\t\t: ${v3}\n`), 3);
	assert.equal(amd64Level(`flags\t\t: ${v3} avx512f avx512dq avx512cd avx512bw avx512vl\n`), 4);
	assert.equal(
		amd64Level(`flags\t\t: ${v3.replace("fma ", "")} avx512f avx512dq avx512cd avx512bw avx512vl\n`),
		2,
	);
});

test("armVariant: kernel's description, then machine name", () => {
	assert.equal(armVariant("arm64", "CPU architecture: 8\n"), "v8");
	assert.equal(armVariant("arm", "CPU architecture: 7\nmodel name : ARMv6-compatible processor\n"), "v6");
	assert.equal(armVariant("arm", "CPU architecture: 5TEJ\n"), "v5");
	assert.equal(armVariant("arm", "", "armv7l"), "v7");
	assert.equal(armVariant("arm64", "", "aarch64"), "v8");
	assert.equal(armVariant("arm", "", "mystery"), undefined);
});

test("hostPlatforms: the default first, canonical", () => {
	const [first] = hostPlatforms();
	assert.deepEqual(first, hostPlatform());
	assert.deepEqual(first, normalizePlatform(hostPlatform()));
});
