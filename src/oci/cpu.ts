import { readFileSync } from "node:fs";
import { machine } from "node:os";

/** The kernel's description of the CPUs; empty where there is none. */
export function readCpuInfo(): string {
	try {
		return readFileSync("/proc/cpuinfo", "utf8");
	} catch {
		return "";
	}
}

/** The value of the first line with this key, in any case; the first CPU speaks for all. */
function field(cpuInfo: string, key: string): string | undefined {
	for (const line of cpuInfo.split("\n")) {
		const [name = "", value] = line.split(":");
		if (value !== undefined && name.trim().toLowerCase() === key) {
			return value.trim();
		}
	}
	return undefined;
}

const armVariants: readonly (readonly [variant: string, values: readonly string[]])[] = [
	["v8", ["8", "aarch64"]],
	["v7", ["7", "7m", "?(12)", "?(13)", "?(14)", "?(15)", "?(16)", "?(17)"]],
	["v6", ["6", "6tej"]],
	["v5", ["5", "5t", "5te", "5tej"]],
	["v4", ["4", "4t"]],
	["v3", ["3"]],
];

/**
 * The instruction set version of an ARM machine, as containerd finds it: from the kernel's description, else (under
 * emulation the description is that of the real machine) from the machine name. Undefined if neither says.
 */
export function armVariant(
	processArch: string,
	cpuInfo: string,
	machineName: string = machine(),
): string | undefined {
	let value = field(cpuInfo, "cpu architecture") ?? versionOfMachine(machineName.toLowerCase());
	if (value === undefined) {
		return undefined;
	}
	// ARMv6 boards of the Raspberry Pi report architecture 7.
	if (processArch === "arm" && value === "7") {
		const model = field(cpuInfo, "model name")?.toLowerCase() ?? "";
		value = model.startsWith("armv6-compatible") ? "6" : value;
	}
	const lower = value.toLowerCase();
	return armVariants.find(([, values]) => values.includes(lower))?.[0] ?? "unknown";
}

function versionOfMachine(name: string): string | undefined {
	return name === "aarch64" ? "8" : /^armv([3-8])/.exec(name)?.[1];
}

const amd64Levels: readonly (readonly string[])[] = [
	["pni", "ssse3", "cx16", "sse4_1", "sse4_2", "popcnt", "lahf_lm"],
	["fma", "movbe", "xsave", "avx", "f16c", "bmi1", "avx2", "bmi2", "abm"],
	["avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl"],
];

/**
 * The x86-64 level (System V ABI for AMD64, section 3.1.1) of the machine, 1 to 4. The kernel hides a flag whose
 * registers it does not save, so that no look at XCR0 is needed.
 */
export function amd64Level(cpuInfo: string): number {
	const flags = new Set(field(cpuInfo, "flags")?.split(" ") ?? []);
	const missing = amd64Levels.findIndex((level) => !level.every((flag) => flags.has(flag)));
	return missing === -1 ? 4 : missing + 1;
}
