import { SlipwayError } from "../errors/errors.ts";
import { memoryBytes } from "./build-values.ts";
import type { ParsedFlags } from "./flags.ts";

/** Names of limits as on the command line, and as the frontend has them. */
const frontendNames: Readonly<Record<string, string>> = {
	memory: "memory",
	"memory-swap": "memswap",
	"cpu-shares": "cpushares",
	"cpu-period": "cpuperiod",
	"cpu-quota": "cpuquota",
	"cpuset-cpus": "cpusetcpus",
	"cpuset-mems": "cpusetmems",
};

/** What the runtime's default period is, in microseconds: one processor's time in it is a quota of as much. */
const defaultPeriod = 100_000;

/**
 * Frontend options for the limits of all steps, from `--resource name=value` and from the flags of `docker build`. Throws
 * `invalid-argument` naming the flag; whether a value makes sense the frontend says.
 */
export function resourceOptions(flags: ParsedFlags): Readonly<Record<string, string>> {
	const options: Record<string, string> = {};
	const set = (name: string, value: string, flag: string): void => {
		const option = frontendNames[name];
		if (option === undefined) {
			throw new SlipwayError(
				"invalid-argument",
				`unknown resource ${JSON.stringify(name)}; one of ${Object.keys(frontendNames).join(", ")}`,
			);
		}
		const converted = limitValue(name, value, flag);
		if (converted !== undefined) {
			options[option] = converted;
		}
	};
	for (const name of Object.keys(frontendNames)) {
		const value = flags.string(name);
		if (value !== undefined) {
			set(name, value, `--${name}`);
		}
	}
	for (const entry of flags.list("resource")) {
		const equals = entry.indexOf("=");
		if (equals === -1) {
			throw new SlipwayError(
				"invalid-argument",
				`invalid resource ${JSON.stringify(entry)}, expected key=value`,
			);
		}
		const name = entry.slice(0, equals).trim();
		set(name, entry.slice(equals + 1).trim(), `--resource ${name}`);
	}
	const cpus = flags.string("cpus");
	return cpus === undefined ? options : { ...options, ...cpuLimit(cpus, options) };
}

/** Undefined where the value means no limit. */
function limitValue(name: string, value: string, flag: string): string | undefined {
	switch (name) {
		case "memory-swap":
			return value === "-1" ? value : nonZero(memoryBytes(flag, value));
		case "memory":
			return nonZero(memoryBytes(flag, value));
		case "cpuset-cpus":
		case "cpuset-mems":
			return value === "" ? undefined : value;
		default:
			if (!/^-?\d+$/.test(value)) {
				throw new SlipwayError("invalid-argument", `invalid value ${JSON.stringify(value)} for ${flag}`);
			}
			return Number(value) > 0 ? value : undefined;
	}
}

function nonZero(bytes: string): string | undefined {
	return bytes === "0" ? undefined : bytes;
}

/** `1.5` processors, as a quota. */
function cpuLimit(text: string, others: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
	const cpus = Number(text);
	if (!/^\d*\.?\d+$/.test(text) || cpus < 0.01) {
		throw new SlipwayError(
			"invalid-argument",
			`invalid value ${JSON.stringify(text)} for --cpus: use a number of processors, at least 0.01`,
		);
	}
	if (others["cpuquota"] !== undefined || others["cpuperiod"] !== undefined) {
		throw new SlipwayError(
			"invalid-argument",
			"--cpus cannot be used together with --cpu-period or --cpu-quota: it sets both",
		);
	}
	return { cpuperiod: String(defaultPeriod), cpuquota: String(Math.round(cpus * defaultPeriod)) };
}
