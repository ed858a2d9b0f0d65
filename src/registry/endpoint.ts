import type { RegistryHostConfig } from "./registry.ts";

/** A server that answers for a registry: the registry itself, or one of its mirrors. */
export interface Endpoint {
	/** `host[:port]`. */
	readonly host: string;
	/** `fallback`: https, and http where the server does not speak TLS. */
	readonly scheme: "https" | "http" | "fallback";
	/** Begins every path: `/v2`, or `/v2/<path>` of a mirror. */
	readonly path: string;
	readonly isMirror: boolean;
	readonly tls: TlsConfig;
}

export interface TlsConfig {
	readonly insecure: boolean;
	readonly ca: readonly string[];
	readonly keyPairs: readonly { readonly key: string; readonly certificate: string }[];
}

/** Docker Hub's name is not its address. */
const dockerHub = "docker.io";
const dockerHubHost = "registry-1.docker.io";

/** The servers for the registry `domain`: mirrors in the order in which they are asked, and the registry itself. */
export function endpointsOf(
	domain: string,
	hosts: Readonly<Record<string, RegistryHostConfig>>,
	options: { readonly insecure?: boolean } = {},
): { readonly mirrors: readonly Endpoint[]; readonly origin: Endpoint } {
	const own = hosts[domain] ?? {};
	const config = options.insecure === true ? { ...own, insecure: true, http: true } : own;
	const mirrors = (own.mirrors ?? []).map((mirror) => {
		const { host, path } = splitMirror(mirror);
		return makeEndpoint(host, `/v2${path}`, true, hosts[host] ?? {});
	});
	const origin = makeEndpoint(domain === dockerHub ? dockerHubHost : domain, "/v2", false, config);
	return { mirrors, origin };
}

function makeEndpoint(host: string, path: string, isMirror: boolean, config: RegistryHostConfig): Endpoint {
	const http = config.http ?? isLoopback(host);
	const insecure = config.insecure ?? false;
	return {
		host,
		path,
		isMirror,
		scheme: http ? (insecure ? "fallback" : "http") : "https",
		tls: { insecure, ca: config.ca ?? [], keyPairs: config.keyPairs ?? [] },
	};
}

/** Mirrors are written with or without a scheme and with a path. */
function splitMirror(mirror: string): { readonly host: string; readonly path: string } {
	const [, host = "", path = ""] = /^(?:[a-z]+:\/\/)?([^/]*)(\/.*?)?\/*$/.exec(mirror) ?? [];
	return { host, path };
}

/** This machine's own addresses, with or without a port: no certificate can be had for them. */
export function isLoopback(host: string): boolean {
	const bare = host.startsWith("[") ? host.slice(1, host.indexOf("]")) : host.replace(/(?<!:):\d+$/, "");
	return bare === "localhost" || bare === "::1" || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(bare);
}
