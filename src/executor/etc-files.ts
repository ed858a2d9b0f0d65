import { readFileSync } from "node:fs";

/** What a sandboxed step's /etc/resolv.conf says where the host's own name servers are out of its reach. */
const publicNameservers = ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"];
const hostResolvConf = "/etc/resolv.conf";
/** systemd-resolved's list of the real servers, used when the host itself only knows the local stub. */
const systemdResolvConf = "/run/systemd/resolve/resolv.conf";

/** What the operator sets for all steps; an empty list leaves the machine's. */
export interface DnsOptions {
	readonly nameservers: readonly string[];
	readonly options: readonly string[];
	readonly searchDomains: readonly string[];
}

/** /etc/hosts of a container. */
export function hostsFile(
	hostname: string,
	extraHosts: readonly { readonly host: string; readonly ip: string }[],
): string {
	const extra = extraHosts.map(({ host, ip }) => `${ip}\t${host}\n`).join("");
	return `127.0.0.1\tlocalhost ${hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n${extra}`;
}

export interface ResolvConfOptions {
	readonly sharesHostNetwork: boolean;
	/** Name servers that the step's network has, used when the host has only ones on its loopback. */
	readonly reachable: readonly string[];
	readonly dns?: DnsOptions;
	/** How files of the host are read; tests have their own. Empty for one that is not there. */
	readonly read?: (path: string) => string;
}

/**
 * /etc/resolv.conf of a container: the host's own where the step shares its network, otherwise without name servers on the
 * host's loopback, which the step can not reach.
 */
export function resolvConf(input: ResolvConfOptions): string {
	const { read = readOptional, dns } = input;
	const host = read(hostResolvConf);
	const source = configured(input.sharesHostNetwork ? host : reachableSource(host, read), dns);
	if (input.sharesHostNetwork && nameservers(source).length > 0) {
		return source;
	}
	const kept = source.split("\n").filter((line) => line !== "" && !isLocalNameserver(line));
	if (nameservers(kept.join("\n")).length === 0) {
		const servers = input.reachable.length > 0 ? input.reachable : publicNameservers;
		kept.push(...servers.map((server) => `nameserver ${server}`));
	}
	return `${kept.join("\n")}\n`;
}

function reachableSource(host: string, read: (path: string) => string): string {
	const servers = nameservers(host);
	const isStub = servers.length === 1 && servers[0] === "127.0.0.53";
	return isStub ? read(systemdResolvConf) || host : host;
}

function configured(text: string, dns: DnsOptions | undefined): string {
	if (dns === undefined) {
		return text;
	}
	const replaced: readonly (readonly [RegExp, readonly string[]])[] = [
		[/^\s*nameserver\s/, dns.nameservers.map((server) => `nameserver ${server}`)],
		[
			/^\s*(?:search|domain)\s/,
			dns.searchDomains.length > 0 ? [`search ${dns.searchDomains.join(" ")}`] : [],
		],
		[/^\s*options\s/, dns.options.length > 0 ? [`options ${dns.options.join(" ")}`] : []],
	];
	let lines: readonly string[] = text.split("\n");
	for (const [pattern, own] of replaced) {
		if (own.length > 0) {
			lines = [...lines.filter((line) => line !== "" && !pattern.test(line)), ...own];
		}
	}
	return lines.join("\n");
}

function nameservers(text: string): readonly string[] {
	return text.split("\n").flatMap((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1] ?? []);
}

function isLocalNameserver(line: string): boolean {
	const server = nameservers(line)[0];
	return server !== undefined && (server.startsWith("127.") || server === "::1");
}

function readOptional(path: string): string {
	try {
		return readFileSync(path, "utf8");
	} catch {
		return "";
	}
}
