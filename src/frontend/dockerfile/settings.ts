import { SlipwayError, wrap } from "../../errors/errors.ts";
import type { LinuxResources } from "../../llb/llb.ts";
import type { ExtraHost, NetworkMode, Ulimit } from "../../llb/op.ts";
import { normalizePlatform, type Platform, parsePlatform } from "../../oci/platform.ts";
import { formatReference, parseReference, withDefaultTag } from "../../oci/reference.ts";
import type { FrontendCacheImport } from "../frontend.ts";
import { parseCsvFields } from "./csv-fields.ts";
import { parseGoBool } from "./go-number.ts";
import { equalFold, toLower } from "./go-text.ts";
import { type LintConfig, parseLintConfig } from "./linter.ts";
import { parseExtraHosts, parseInteger, parseLinuxResources, parseUlimits } from "./resource-settings.ts";

/** What the frontend's options say. Options that it does not know are another's: `cmdline`, or those of exporters. */
export interface BuildSettings {
	readonly buildArgs: ReadonlyMap<string, string>;
	readonly labels: ReadonlyMap<string, string>;
	/** Empty for the last stage. */
	readonly target: string;
	/** Asked for; empty for the builder's own. */
	readonly targetPlatforms: readonly Platform[];
	readonly multiPlatform: boolean;
	/** Stages that are built anew, by name in any case. */
	readonly noCache:
		| { readonly kind: "none" | "all" }
		| { readonly kind: "stages"; readonly names: readonly string[] };
	readonly resolveMode: "default" | "pull" | "local";
	readonly network: NetworkMode;
	readonly extraHosts: readonly ExtraHost[];
	readonly hostname: string;
	/** Bytes; 0 for the default. */
	readonly shmSize: number;
	readonly ulimits: readonly Ulimit[];
	readonly resources: LinuxResources | undefined;
	readonly cgroupParent: string;
	/** Begins the ids of cache mounts. */
	readonly cacheNamespace: string;
	/** Replaces the `check` directive. */
	readonly lint: LintConfig | undefined;
	readonly cacheImports: readonly FrontendCacheImport[];
	/** Of the scanner that lists an image's packages; absent if none is asked for. */
	readonly sbom: { readonly generator: string; readonly parameters: ReadonlyMap<string, string> } | undefined;
}

export type FrontendOptions = Readonly<Record<string, string>>;

const buildArgPrefix = "build-arg:";

/** Throws `invalid-argument` with BuildKit's message for the first option that can't be understood. */
export function parseSettings(options: FrontendOptions): BuildSettings {
	checkRemoved(options);
	const get = (key: string): string => options[key] ?? "";
	const buildArg = (key: string): string => get(buildArgPrefix + key);
	const targetPlatforms = parsePlatforms(get("platform"));
	const resolveMode = parseResolveMode(get("image-resolve-mode"));
	const extraHosts = within("failed to parse additional hosts", () => parseExtraHosts(get("add-hosts")));
	const shmSize = within("failed to parse shm size", () =>
		get("shm-size") === "" ? 0 : parseInteger(get("shm-size")),
	);
	const ulimits = within("failed to parse ulimit", () => parseUlimits(get("ulimit")));
	const resources = within("failed to parse resource limits", () => parseLinuxResources(options));
	const network = parseNetwork(get("force-network-mode"));
	const multiPlatform = parseMultiPlatform(
		buildArg("BUILDKIT_MULTI_PLATFORM") || get("multi-platform"),
		targetPlatforms.length,
	);
	const cacheImports = parseCacheImports(options);
	const sbom = parseSbom(options);
	const check = options[`${buildArgPrefix}BUILDKIT_DOCKERFILE_CHECK`];
	const noCache = options["no-cache"];
	return {
		buildArgs: withPrefix(options, buildArgPrefix),
		labels: withPrefix(options, "label:"),
		target: get("target"),
		targetPlatforms,
		multiPlatform,
		noCache:
			noCache === undefined
				? { kind: "none" }
				: noCache === ""
					? { kind: "all" }
					: { kind: "stages", names: noCache.split(",") },
		resolveMode,
		network,
		extraHosts,
		hostname: buildArg("BUILDKIT_SANDBOX_HOSTNAME") || get("hostname"),
		shmSize,
		ulimits,
		resources,
		cgroupParent: get("cgroup-parent"),
		cacheNamespace: buildArg("BUILDKIT_CACHE_MOUNT_NS"),
		lint:
			check === undefined
				? undefined
				: within("failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK", () => parseLintConfig(check)),
		cacheImports,
		sbom,
	};
}

export function ignoresCache({ noCache }: BuildSettings, stageName: string): boolean {
	switch (noCache.kind) {
		case "none":
			return false;
		case "all":
			return true;
		case "stages":
			return noCache.names.some((name) => equalFold(name, stageName));
	}
}

function checkRemoved(options: FrontendOptions): void {
	if ((options["override-copy-image"] ?? "") !== "") {
		throw invalid('support for "override-copy-image" was removed in BuildKit 0.11');
	}
	if (parseGoBool(options["build-arg:BUILDKIT_DISABLE_FILEOP"] ?? "") === true) {
		throw invalid('support for "BUILDKIT_DISABLE_FILEOP" build-arg was removed in BuildKit 0.11');
	}
}

function parsePlatforms(text: string): readonly Platform[] {
	if (text === "") {
		return [];
	}
	return text
		.split(",")
		.map((each) =>
			normalizePlatform(within(`failed to parse target platform ${each}`, () => parsePlatform(each))),
		);
}

function parseResolveMode(mode: string): BuildSettings["resolveMode"] {
	switch (mode) {
		case "":
		case "default":
			return "default";
		case "pull":
		case "local":
			return mode;
		default:
			throw invalid(`invalid image-resolve-mode: ${mode}`);
	}
}

function parseNetwork(mode: string): NetworkMode {
	switch (mode) {
		case "":
		case "sandbox":
			return "sandbox";
		case "none":
		case "host":
			return mode;
		default:
			throw invalid(`invalid netmode ${mode}`);
	}
}

function parseMultiPlatform(text: string, platforms: number): boolean {
	if (text === "") {
		return platforms > 1;
	}
	const value = parseGoBool(text);
	if (value === undefined) {
		throw invalid(`invalid boolean value for multi-platform: ${text}`);
	}
	if (!value && platforms > 1) {
		throw invalid("conflicting config: returning multiple target platforms is not allowed");
	}
	return value;
}

function parseCacheImports(options: FrontendOptions): readonly FrontendCacheImport[] {
	const text = options["cache-imports"] ?? "";
	const imports = text === "" ? [] : parseCacheImportList(text);
	const refs = options["cache-from"] ?? "";
	const old = refs === "" ? [] : refs.split(",").map((ref) => ({ type: "registry", attrs: { ref } }));
	return [...imports, ...old];
}

function parseCacheImportList(text: string): readonly FrontendCacheImport[] {
	const fail = (reason: string, cause?: unknown): SlipwayError =>
		new SlipwayError(
			"invalid-argument",
			`failed to unmarshal cache-imports (${JSON.stringify(text)}): ${reason}`,
			{ cause },
		);
	let value: unknown;
	try {
		value = JSON.parse(text);
	} catch (error) {
		throw fail((error as Error).message, error);
	}
	if (value === null) {
		return [];
	}
	if (!Array.isArray(value)) {
		throw fail("it is no list");
	}
	return value.map((entry: unknown) => {
		if (typeof entry !== "object" || entry === null || Array.isArray(entry)) {
			throw fail("an entry is no object");
		}
		const fields = new Map(Object.entries(entry).map(([key, field]) => [toLower(key), field as unknown]));
		const type = fields.get("type") ?? "";
		const attrs = fields.get("attrs") ?? {};
		const isText = (field: unknown): field is string => typeof field === "string";
		if (!isText(type) || typeof attrs !== "object" || !Object.values(attrs).every(isText)) {
			throw fail("an entry has a field that is no text");
		}
		return { type, attrs: { ...attrs } };
	});
}

/** `attest:<type>` and the build arguments that mean the same. Provenance is the builder's own business. */
function parseSbom(options: FrontendOptions): BuildSettings["sbom"] {
	const attests = new Map<string, string>();
	for (const [key, value] of Object.entries(options)) {
		for (const prefix of ["attest:", "build-arg:BUILDKIT_ATTEST_"]) {
			if (key.startsWith(prefix)) {
				attests.set(toLower(key.slice(prefix.length)), value);
			}
		}
	}
	const parsed = new Map(
		[...attests].map(([type, value]) => [
			type,
			within(`failed to parse ${type}`, () => (value === "" ? [] : parseCsvFields(value))),
		]),
	);
	for (const type of parsed.keys()) {
		if (type !== "sbom" && type !== "provenance") {
			throw invalid(`unknown attestation type ${JSON.stringify(type)}`);
		}
	}
	const fields = parsed.get("sbom");
	if (fields === undefined) {
		return undefined;
	}
	const parameters = new Map<string, string>();
	let generator = "docker/buildkit-syft-scanner:stable-1";
	for (const field of fields) {
		const equals = field.indexOf("=");
		const key = equals < 0 ? field : field.slice(0, equals);
		const value = equals < 0 ? "" : field.slice(equals + 1);
		if (key === "generator") {
			generator = value;
		} else {
			parameters.set(key, value);
		}
	}
	const ref = within(`failed to parse sbom scanner ${generator}`, () => parseReference(generator));
	return { generator: formatReference(withDefaultTag(ref)), parameters };
}

function withPrefix(options: FrontendOptions, prefix: string): ReadonlyMap<string, string> {
	return new Map(
		Object.entries(options)
			.filter(([key]) => key.startsWith(prefix))
			.map(([key, value]) => [key.slice(prefix.length), value]),
	);
}

function within<T>(prefix: string, work: () => T): T {
	try {
		return work();
	} catch (error) {
		throw wrap(error, prefix);
	}
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
