import type * as messages from "../api/generated/control.ts";
import { SlipwayError } from "../errors/errors.ts";
import { fromPolicyMessage } from "../frontend/gateway/policy-message.ts";
import { fromDefinitionMessage } from "../llb/definition-message.ts";
import type { Definition } from "../llb/llb.ts";
import type { BuildRequest } from "./control.ts";
import { parseEntitlement } from "./entitlements.ts";
import { checkAttestations } from "./service-attestations.ts";

/** What a client asked for, in the terms of this builder. */
export interface SolveOrder {
	readonly request: BuildRequest;
	readonly sessionId: string;
	/** Not kept in the history. */
	readonly internal: boolean;
	/** The session that decides about sources; empty for none. */
	readonly policySessionId: string;
	/** Of what is asked for and will not be done. */
	readonly warning?: string;
}

const compatibilityVersions = [10, 20, 30];
const epochArg = "build-arg:SOURCE_DATE_EPOCH";

/**
 * Reads a request with all that older clients put elsewhere: exporters, caches to export and to import. Throws what
 * BuildKit says of a request that contradicts itself.
 */
export function readSolveRequest(message: messages.SolveRequest): SolveOrder {
	checkCompatibility(message.CompatibilityVersion);
	if (message.ProxyNetwork) {
		throw new SlipwayError("unimplemented", "the proxy network is not supported");
	}
	if (message.Ref === "") {
		throw new SlipwayError("invalid-argument", "a build has no ref");
	}
	const { frontend, attrs } = readFrontend(message);
	const { warning } = checkAttestations(attrs);
	const request: BuildRequest = {
		ref: message.Ref,
		frontend,
		frontendOptions: attrs,
		frontendInputs: new Map(
			[...message.FrontendInputs].map(([name, input]) => [name, fromDefinitionMessage(input)]),
		),
		definition: readDefinition(message),
		exporters: readExporters(message),
		entitlements: message.Entitlements.map(parseEntitlement),
		sessionExporters: message.EnableSessionExporter,
		cacheExports: readCacheExports(message.Cache),
		cacheImports: readCacheImports(message.Cache),
		...(message.SourcePolicy === undefined
			? {}
			: { sourcePolicies: [fromPolicyMessage(message.SourcePolicy)] }),
	};
	return {
		request,
		sessionId: message.Session,
		internal: message.Internal,
		policySessionId: message.SourcePolicySession,
		...(warning === undefined ? {} : { warning }),
	};
}

function checkCompatibility(version: number): void {
	const newest = Math.max(...compatibilityVersions);
	if (version === 0 || compatibilityVersions.includes(version)) {
		return;
	}
	const hint =
		version > newest
			? `: upgrade buildkit (max supported: ${newest})`
			: ` (supported: [${compatibilityVersions.join(" ")}])`;
	throw new SlipwayError("unknown", `unsupported compatibility-version ${version}${hint}`);
}

function readDefinition({ Definition: definition }: messages.SolveRequest): Definition | undefined {
	return definition === undefined ? undefined : fromDefinitionMessage(definition);
}

/** An external frontend of the name of the built-in one is the built-in one, unless its image is replaced. */
function readFrontend({ Frontend: frontend, FrontendAttrs: map }: messages.SolveRequest): {
	readonly frontend: string | undefined;
	readonly attrs: Readonly<Record<string, string>>;
} {
	const attrs = Object.fromEntries(map);
	const replaced = [...map.keys()].some((key) => /^context:dockerfile\.v0(?:$|::)/.test(key));
	if (frontend === "gateway.v0" && map.get("source") === "dockerfile.v0" && !replaced) {
		const { source: _, ...rest } = attrs;
		return { frontend: "dockerfile.v0", attrs: rest };
	}
	return { frontend: frontend || undefined, attrs };
}

function readExporters(message: messages.SolveRequest): BuildRequest["exporters"] {
	const { Exporters: exporters, ExporterDeprecated: old, FrontendAttrs: attrs } = message;
	const wanted =
		exporters.length === 0 && old !== ""
			? [{ Type: old, Attrs: message.ExporterAttrsDeprecated }]
			: exporters;
	const epoch = attrs.get(epochArg);
	const common = epoch !== undefined && /^[+-]?\d+$/.test(epoch) ? { "source-date-epoch": epoch } : {};
	return wanted.map(({ Type: type, Attrs: own }) => ({
		type,
		attrs: { ...common, ...Object.fromEntries(own) },
	}));
}

/** The second inline cache is the first; any other that is asked for twice is an error. */
function readCacheExports(cache: messages.CacheOptions | undefined): BuildRequest["cacheExports"] & {} {
	const all = (cache?.Exports ?? []).map(({ Type: type, Attrs: attrs }) => ({
		type,
		attrs: Object.fromEntries(attrs),
	}));
	if (cache !== undefined && cache.ExportRefDeprecated !== "") {
		const attrs = { ...Object.fromEntries(cache.ExportAttrsDeprecated), ref: cache.ExportRefDeprecated };
		all.push({ type: "registry", attrs });
	}
	const seen = new Set<string>();
	const duplicates = new Map<string, string>();
	const rest = all.filter(({ type, attrs }, index) => {
		if (type === "inline" && all.findIndex((other) => other.type === "inline") < index) {
			return false;
		}
		const ref = type === "registry" ? attrs["ref"] : undefined;
		const key = ref || JSON.stringify([type, Object.entries(attrs).sort(([a], [b]) => (a < b ? -1 : 1))]);
		if (seen.has(key)) {
			duplicates.set(key, type);
		}
		seen.add(key);
		return true;
	});
	if (duplicates.size > 0) {
		throw new SlipwayError("unknown", `duplicate cache exports [${[...duplicates.values()].join(" ")}]`);
	}
	return rest;
}

function readCacheImports(cache: messages.CacheOptions | undefined): BuildRequest["cacheImports"] & {} {
	return [
		...(cache?.Imports ?? []).map(({ Type: type, Attrs: attrs }) => ({
			type,
			attrs: Object.fromEntries(attrs),
		})),
		...(cache?.ImportRefsDeprecated ?? []).map((ref) => ({ type: "registry", attrs: { ref } })),
	];
}
