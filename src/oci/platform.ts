import { endianness } from "node:os";
import { posix } from "node:path";
import { SlipwayError } from "../errors/errors.ts";
import { armVariant, readCpuInfo } from "./cpu.ts";
import { quoteGo } from "./go-quote.ts";
import { sortUtf8 } from "./utf8-order.ts";

/** OCI image spec, image-index.md, `platform`. */
export interface Platform {
	readonly architecture: string;
	readonly os: string;
	readonly "os.version"?: string;
	readonly "os.features"?: readonly string[];
	readonly variant?: string;
}

const componentPattern = /^[A-Za-z0-9_.-]+$/;
const osPattern = /^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$/;

const knownOses: ReadonlySet<string> = new Set(
	"aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris windows zos".split(
		" ",
	),
);

const knownArchitectures: ReadonlySet<string> = new Set(
	(
		"386 amd64 amd64p32 arm armbe arm64 arm64be ppc64 ppc64le loong64 mips mipsle mips64 mips64le mips64p32 " +
		"mips64p32le ppc riscv riscv64 s390 s390x sparc sparc64 wasm"
	).split(" "),
);

/** Go's name of the architecture that this process runs on. */
function goArchitecture(): string {
	switch (process.arch) {
		case "x64":
			return "amd64";
		case "ia32":
			return "386";
		case "ppc64":
			return endianness() === "LE" ? "ppc64le" : "ppc64";
		case "mipsel":
			return "mipsle";
		default:
			return process.arch;
	}
}

let hostVariant: { readonly value: string | undefined } | undefined;

function hostArmVariant(): string | undefined {
	hostVariant ??= { value: armVariant(process.arch, readCpuInfo()) };
	return hostVariant.value;
}

/** The fields of a platform, of whatever else the value has, in the order of Go's struct: what `JSON.stringify` writes of it is BuildKit's. */
export function orderedPlatform(platform: Platform): Platform {
	const { architecture, os, variant, "os.version": version, "os.features": features } = platform;
	return {
		architecture,
		os,
		...(version === undefined ? {} : { "os.version": version }),
		...(features === undefined ? {} : { "os.features": features }),
		...(variant === undefined ? {} : { variant }),
	};
}

/**
 * The platform of this machine, normalised, as BuildKit names its default worker platform: no variant on amd64 and
 * arm64, the variant of the CPU on arm. See `hostPlatforms` in host-platforms.ts for all that the machine can run.
 */
export function hostPlatform(): Platform {
	const architecture = goArchitecture();
	const isArm = architecture === "arm" || architecture === "arm64";
	const variant = isArm ? hostArmVariant() : undefined;
	return normalizePlatform({
		architecture,
		os: process.platform,
		...(variant === undefined ? {} : { variant }),
	});
}

/**
 * Parses `os`, `arch`, `os/arch` or `os/arch/variant`, where `os` may carry options: `windows(10.0.17763+win32k)`.
 * What is missing is taken from this machine. The syntax, the aliases and the messages are those of containerd's
 * platforms package. Throws `invalid-argument`.
 */
export function parsePlatform(specifier: string): Platform {
	const quoted = quoteGo(specifier);
	if (specifier.includes("*")) {
		throw invalid(`${quoted}: wildcards not yet supported`);
	}
	const parts = splitAtMost(specifier, 4);
	const [first = "", second = "", third = ""] = parts;
	const options = osPattern.exec(first);
	if (options === null) {
		throw invalid(
			`${quoteGo(first)} is an invalid OS component of ${quoted}: OSAndVersion specifier component must match ${quoteGo(osPattern.source)}`,
		);
	}
	const os = normalizeOs(options[1] ?? "");
	const version = decodeOsVersion(specifier, options[2] ?? "");
	const features = parseOsFeatures(specifier, options[3] ?? "");
	for (const part of parts.slice(1)) {
		if (!componentPattern.test(part)) {
			throw invalid(
				`${quoteGo(part)} is an invalid component of ${quoted}: platform specifier component must match ${quoteGo(componentPattern.source)}`,
			);
		}
	}
	const make = (architecture: string, variant: string, withOs: string = os): Platform => ({
		architecture,
		os: withOs,
		...(version === "" ? {} : { "os.version": version }),
		...(features.length === 0 ? {} : { "os.features": features }),
		...(variant === "" ? {} : { variant }),
	});

	switch (parts.length) {
		case 1: {
			if (knownOses.has(os)) {
				const architecture = goArchitecture();
				const variant = architecture === "arm" ? (hostArmVariant() ?? "") : "";
				return make(architecture, variant === "v7" ? "" : variant);
			}
			const [architecture, variant] = normalizeArchitecture(first, "");
			if (knownArchitectures.has(architecture)) {
				return make(architecture, impliedVariant(architecture, variant), process.platform);
			}
			throw invalid(`${quoted}: unknown operating system or architecture`);
		}
		case 2: {
			const [architecture, variant] = normalizeArchitecture(second, "");
			return make(architecture, impliedVariant(architecture, variant));
		}
		case 3: {
			const [architecture, variant] = normalizeArchitecture(second, third);
			return make(architecture, architecture === "arm64" && variant === "" ? "v8" : variant);
		}
		default:
			throw invalid(`${quoted}: cannot parse platform specifier`);
	}
}

/** The last part keeps its slashes, so that a long input is not taken apart for nothing. */
function splitAtMost(text: string, count: number): readonly string[] {
	const parts = text.split("/", count);
	const taken = parts.slice(0, count - 1);
	return parts.length < count ? parts : [...taken, text.slice(taken.join("/").length + 1)];
}

/** `arm` without a variant means v7, and stays without one. */
function impliedVariant(architecture: string, variant: string): string {
	return architecture === "arm" && variant === "v7" ? "" : variant;
}

/** `os/arch[/variant]`, without version and features; `unknown` if the platform has no OS. */
export function formatPlatform(platform: Platform): string {
	return platform.os === ""
		? "unknown"
		: posix.join(platform.os, platform.architecture, platform.variant ?? "");
}

/** As `formatPlatform`, with version and features of the OS: `windows(10.0.17763+win32k)/amd64`. */
export function formatPlatformAll(platform: Platform): string {
	if (platform.os === "") {
		return "unknown";
	}
	const version = encodeOsOption(platform["os.version"] ?? "");
	const features = [...new Set(sortUtf8(platform["os.features"] ?? []))].filter((feature) => feature !== "");
	const options = version + features.map((feature) => `+${encodeOsOption(feature)}`).join("");
	const os = options === "" ? platform.os : `${platform.os}(${options})`;
	return posix.join(os, platform.architecture, platform.variant ?? "");
}

/** The canonical form: aliases of OS, architecture and variant replaced, features sorted and without repeats. */
export function normalizePlatform(platform: Platform): Platform {
	const [architecture, variant] = normalizeArchitecture(platform.architecture, platform.variant ?? "");
	const version = platform["os.version"] ?? "";
	const features = [...new Set(sortUtf8(platform["os.features"] ?? []))];
	return {
		architecture,
		os: normalizeOs(platform.os),
		...(version === "" ? {} : { "os.version": version }),
		...(features.length === 0 ? {} : { "os.features": features }),
		...(variant === "" ? {} : { variant }),
	};
}

function normalizeOs(os: string): string {
	const lower = (os === "" ? process.platform : os).toLowerCase();
	return lower === "macos" ? "darwin" : lower;
}

function normalizeArchitecture(
	name: string,
	variantName: string,
): readonly [architecture: string, variant: string] {
	const architecture = name.toLowerCase();
	const variant = variantName.toLowerCase();
	switch (architecture) {
		case "i386":
			return ["386", ""];
		case "x86_64":
		case "x86-64":
		case "amd64":
			return ["amd64", variant === "v1" ? "" : variant];
		case "aarch64":
		case "arm64":
			if (variant === "8" || variant === "v8" || variant === "v8.0") {
				return ["arm64", ""];
			}
			return ["arm64", variant === "9" || variant === "9.0" || variant === "v9.0" ? "v9" : variant];
		case "armhf":
			return ["arm", "v7"];
		case "armel":
			return ["arm", "v6"];
		case "arm":
			if (variant === "" || variant === "7") {
				return ["arm", "v7"];
			}
			return ["arm", variant === "5" || variant === "6" || variant === "8" ? `v${variant}` : variant];
		default:
			return [architecture, variant];
	}
}

/** The characters of an option that mean something in the syntax. */
function encodeOsOption(value: string): string {
	return value.replace(/[%+()/]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);
}

function decodeOsVersion(specifier: string, raw: string): string {
	const problem = findBadEscape(raw);
	if (problem !== undefined) {
		throw new SlipwayError(
			"invalid-argument",
			`${quoteGo(specifier)} has an invalid OS version ${quoteGo(raw)}: invalid URL escape ${quoteGo(problem)}`,
		);
	}
	return decodeEscapes(raw);
}

/** `raw` is empty or `+feature` repeated. */
function parseOsFeatures(specifier: string, raw: string): readonly string[] {
	const features = raw.split("+").slice(1);
	for (const feature of features) {
		const problem = findBadEscape(feature);
		if (problem !== undefined) {
			throw new SlipwayError(
				"invalid-argument",
				`${quoteGo(specifier)} has invalid OS features: invalid os feature ${quoteGo(feature)}: invalid URL escape ${quoteGo(problem)}`,
			);
		}
	}
	return features.map(decodeEscapes);
}

function findBadEscape(text: string): string | undefined {
	return /%(?![0-9A-Fa-f]{2}).{0,2}/.exec(text)?.[0];
}

function decodeEscapes(text: string): string {
	if (!text.includes("%")) {
		return text;
	}
	const latin = text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
		String.fromCharCode(Number.parseInt(hex, 16)),
	);
	return Buffer.from(latin, "latin1").toString("utf8");
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", `${message}: invalid argument`);
}
