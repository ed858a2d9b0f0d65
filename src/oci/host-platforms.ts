import { amd64Level, readCpuInfo } from "./cpu.ts";
import { hostPlatform, type Platform } from "./platform.ts";

/**
 * The platforms whose programs this machine's CPU runs itself, the default first, in the order in which BuildKit
 * lists them: on amd64 also the higher levels that the CPU has. Emulated platforms are the executor's to find.
 */
export function hostPlatforms(cpuInfo: string = readCpuInfo()): readonly Platform[] {
	const host = hostPlatform();
	if (host.os !== "linux" || host.architecture !== "amd64") {
		return [host];
	}
	const level = amd64Level(cpuInfo);
	return [host, ...[2, 3, 4].filter((n) => n <= level).map((n) => ({ ...host, variant: `v${n}` }))];
}
