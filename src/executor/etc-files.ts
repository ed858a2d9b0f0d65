import { readFileSync } from "node:fs";

/** What a sandboxed step's /etc/resolv.conf says where the host's own name servers are out of its reach. */
const publicNameservers = ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"];
const hostResolvConf = "/etc/resolv.conf";
/** systemd-resolved's list of the real servers, used when the host itself only knows the local stub. */
const systemdResolvConf = "/run/systemd/resolve/resolv.conf";

/** /etc/hosts of a container. */
export function hostsFile(
	hostname: string,
	extraHosts: readonly { readonly host: string; readonly ip: string }[],
): string {
	const extra = extraHosts.map(({ host, ip }) => `${ip}\t${host}\n`).join("");
	return `127.0.0.1\tlocalhost ${hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n${extra}`;
}

/**
 * /etc/resolv.conf of a container: the host's own where the step shares its network, otherwise without name servers on the
 * host's loopback, which the step can not reach.
 */
export function resolvConf(sharesHostNetwork: boolean): string {
	const host = readOptional(hostResolvConf);
	if (sharesHostNetwork && nameservers(host).length > 0) {
		return host;
	}
	const stubOnly = nameservers(host).every((server) => server === "127.0.0.53") && host !== "";
	const source = stubOnly ? readOptional(systemdResolvConf) || host : host;
	const kept = source.split("\n").filter((line) => !isLocalNameserver(line));
	if (nameservers(kept.join("\n")).length === 0) {
		kept.push(...publicNameservers.map((server) => `nameserver ${server}`));
	}
	return `${kept.filter((line) => line !== "").join("\n")}\n`;
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
