import { isIP } from "node:net";
import type { SourceRange } from "../../errors/errors.ts";
import { SlipwayError } from "../../errors/errors.ts";
import { quoteGo } from "../../oci/go-quote.ts";
import { toLower } from "./go-text.ts";
import { exposeInvalidFormat, exposeProtoCasing } from "./lint-rules.ts";
import type { Linter } from "./linter.ts";

/**
 * `[[ip:]hostPort:]port[-end][/proto]` of EXPOSE as `port/proto`, one for each port of a range. Host and address are
 * checked and have no effect. Throws `invalid-argument` with BuildKit's message.
 */
export function parseExposedPort(
	text: string,
	lint: Linter,
	ranges: readonly SourceRange[],
): readonly string[] {
	const { ip, hostPort, rest } = splitParts(text);
	const slash = rest.indexOf("/");
	const port = slash < 0 ? rest : rest.slice(0, slash);
	const written = slash < 0 ? "" : rest.slice(slash + 1);
	const proto = toLower(written) || "tcp";
	if (port === "") {
		throw invalid(`invalid port: ${quoteGo(text)}: no port specified`);
	}
	if (proto !== "tcp" && proto !== "udp" && proto !== "sctp") {
		throw invalid(`invalid port: ${quoteGo(text)}: invalid proto: ${written}`);
	}
	if (written !== toLower(written)) {
		lint.report(exposeProtoCasing, ranges, text);
	}
	if (ip !== "" || hostPort !== "") {
		lint.report(exposeInvalidFormat, ranges, text);
	}
	checkAddress(ip);
	const own = parseRange(port);
	if (own === undefined) {
		throw invalid(`invalid containerPort: ${port}`);
	}
	if (hostPort !== "") {
		const host = parseRange(hostPort);
		if (host === undefined) {
			throw invalid(`invalid hostPort: ${hostPort}`);
		}
		// The host may offer a range to choose from for a single port.
		if (own.end - own.start !== host.end - host.start && own.end !== own.start) {
			throw invalid(`invalid ranges specified for container and host Ports: ${port} and ${hostPort}`);
		}
	}
	return Array.from({ length: own.end - own.start + 1 }, (_, offset) => `${own.start + offset}/${proto}`);
}

function splitParts(text: string): { readonly ip: string; readonly hostPort: string; readonly rest: string } {
	const parts = text.split(":");
	return {
		ip: parts.slice(0, -2).join(":"),
		hostPort: parts.at(-2) ?? "",
		rest: parts.at(-1) ?? "",
	};
}

function checkAddress(ip: string): void {
	if (ip === "") {
		return;
	}
	let address = ip;
	if (ip.startsWith("[")) {
		const problem = bracketProblem(ip);
		if (problem !== undefined) {
			throw invalid(`invalid IP address ${ip}: address ${ip}:: ${problem}`);
		}
		address = ip.slice(1, -1);
	}
	if (address !== "" && (isIP(address) === 0 || address.includes("%"))) {
		throw invalid(`invalid IP address: ${address}`);
	}
}

/** What Go's `net.SplitHostPort` says about the address with a colon behind. */
function bracketProblem(ip: string): string | undefined {
	const close = ip.indexOf("]");
	if (close < 0) {
		return "missing ']' in address";
	}
	if (close !== ip.length - 1) {
		return ip[close + 1] === ":" ? "too many colons in address" : "missing port in address";
	}
	return ip.indexOf("[", 1) < 0 ? undefined : "unexpected '[' in address";
}

interface PortRange {
	readonly start: number;
	readonly end: number;
}

function parseRange(text: string): PortRange | undefined {
	const dash = text.indexOf("-");
	const start = parsePort(dash < 0 ? text : text.slice(0, dash));
	const end = dash < 0 ? start : parsePort(text.slice(dash + 1));
	return start === undefined || end === undefined || end < start ? undefined : { start, end };
}

function parsePort(text: string): number | undefined {
	const port = /^[+-]?[0-9]+$/.test(text) ? Number(text) : -1;
	return port >= 0 && port <= 65535 ? port + 0 : undefined;
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
