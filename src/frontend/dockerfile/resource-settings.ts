import { isIP } from "node:net";
import { SlipwayError, wrap } from "../../errors/errors.ts";
import type { LinuxResources } from "../../llb/llb.ts";
import type { ExtraHost, Ulimit } from "../../llb/op.ts";
import { quoteGo } from "../../oci/go-quote.ts";
import { parseCsvFields } from "./csv-fields.ts";
import { toLower, trimSpace } from "./go-text.ts";

/** `host=ip,...`. Throws `invalid-argument`, as all here. */
export function parseExtraHosts(text: string): readonly ExtraHost[] {
	if (text === "") {
		return [];
	}
	return parseCsvFields(text).map((field) => {
		const entry = toLower(field);
		const equals = entry.indexOf("=");
		if (equals < 0) {
			throw invalid(`invalid key-value pair ${field}`);
		}
		const ip = entry.slice(equals + 1);
		if (isIP(ip) === 0 || ip.includes("%")) {
			throw invalid(`failed to parse IP ${ip}`);
		}
		return { host: entry.slice(0, equals), ip };
	});
}

const ulimitNames: ReadonlySet<string> = new Set(
	"core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split(
		" ",
	),
);

/** `name=soft[:hard],...`. */
export function parseUlimits(text: string): readonly Ulimit[] {
	return text === "" ? [] : parseCsvFields(text).map(parseUlimit);
}

function parseUlimit(text: string): Ulimit {
	const equals = text.indexOf("=");
	if (equals < 0) {
		throw invalid(`invalid ulimit argument: ${text}`);
	}
	const name = text.slice(0, equals);
	const values = text.slice(equals + 1);
	if (!ulimitNames.has(name)) {
		throw invalid(`invalid ulimit type: ${name}`);
	}
	const parts = values.split(":");
	if (parts.length > 2) {
		throw invalid(`too many limit value arguments - ${values}, can only have up to two, \`soft[:hard]\``);
	}
	const written = parts[1];
	const hardLimit = written === undefined ? undefined : parseBigInteger(written);
	const soft = parseBigInteger(parts[0] ?? "");
	const hard = hardLimit ?? soft;
	if (hard !== -1n && (soft === -1n || soft > hard)) {
		const compared = soft === -1n ? `soft: -1 (unlimited), hard: ${hard}` : `${soft} > ${hard}`;
		throw invalid(`ulimit soft limit must be less than or equal to hard limit: ${compared}`);
	}
	return { name, soft, hard };
}

/** The limits of a step's control group; undefined for none. */
export function parseLinuxResources(options: Readonly<Record<string, string>>): LinuxResources | undefined {
	const number = (
		key: string,
		{ signed, allowed, rule }: { signed: boolean; allowed: (value: number) => boolean; rule: string },
	): number => {
		const text = options[key] ?? "";
		if (text === "") {
			return 0;
		}
		let value: number;
		try {
			value = parseInteger(text, signed);
		} catch (error) {
			throw wrap(error, `invalid ${key} value: ${text}`);
		}
		if (!allowed(value)) {
			throw invalid(`invalid ${key} value: ${text}: must be ${rule}`);
		}
		return value;
	};
	const cpuset = (key: string): string => {
		const text = options[key] ?? "";
		try {
			checkCpuset(text);
		} catch (error) {
			throw wrap(error, `invalid ${key} value: ${text}`);
		}
		return text;
	};
	const positive = { signed: true, allowed: (value: number) => value > 0, rule: "> 0" };
	const resources: LinuxResources = {
		memory: number("memory", positive),
		memorySwap: number("memswap", {
			signed: true,
			allowed: (value) => value > 0 || value === -1,
			rule: "-1 (unlimited) or > 0",
		}),
		cpuShares: number("cpushares", { ...positive, signed: false }),
		cpuPeriod: number("cpuperiod", { ...positive, signed: false }),
		cpuQuota: number("cpuquota", positive),
		cpusetCpus: cpuset("cpusetcpus"),
		cpusetMems: cpuset("cpusetmems"),
	};
	const some = Object.values(resources).some((value) => value !== 0 && value !== "");
	return some ? resources : undefined;
}

const maxCpu = 8192;

/** `0-3,5`: blanks and empty elements do not count. */
function checkCpuset(text: string): void {
	for (const each of text.split(",")) {
		const part = trimSpace(each);
		if (part === "") {
			continue;
		}
		const dash = part.indexOf("-");
		const element = (value: string): number => (/^\+?[0-9]+$/.test(value) ? Number(value) : Number.NaN);
		if (dash < 0) {
			const cpu = element(part);
			if (Number.isNaN(cpu)) {
				throw invalid(`invalid cpuset element ${quoteGo(part)}`);
			}
			if (cpu > maxCpu) {
				throw invalid(`cpuset element ${quoteGo(part)} exceeds maximum ${maxCpu}`);
			}
			continue;
		}
		const low = element(trimSpace(part.slice(0, dash)));
		const high = element(trimSpace(part.slice(dash + 1)));
		if (Number.isNaN(low) || Number.isNaN(high) || high < low) {
			throw invalid(`invalid cpuset range ${quoteGo(part)}`);
		}
		if (high > maxCpu) {
			throw invalid(`cpuset range ${quoteGo(part)} exceeds maximum ${maxCpu}`);
		}
	}
}

/** Go's `strconv.ParseInt(text, 10, 64)` or `ParseUint` with their errors; past 2^53 the nearest double. */
export function parseInteger(text: string, signed = true): number {
	return Number(parseBigInteger(text, signed));
}

function parseBigInteger(text: string, signed = true): bigint {
	const prefix = `strconv.Parse${signed ? "Int" : "Uint"}: parsing ${quoteGo(text)}`;
	if (!(signed ? /^[+-]?[0-9]+$/ : /^[0-9]+$/).test(text)) {
		throw invalid(`${prefix}: invalid syntax`);
	}
	// More digits than any number of 64 bits has are not worth converting.
	const digits = text.replace(/^\+/, "").replace(/^(-?)0+(?=[0-9])/, "$1");
	const value = digits.length > 21 ? undefined : BigInt(digits);
	if (value === undefined || value !== (signed ? BigInt.asIntN(64, value) : BigInt.asUintN(64, value))) {
		throw invalid(`${prefix}: value out of range`);
	}
	return value;
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
