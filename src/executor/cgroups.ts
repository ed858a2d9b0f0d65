import { existsSync, readFileSync } from "node:fs";
import { listMounts, unmount } from "../sys/mount.ts";

const cgroupRoot = "/sys/fs/cgroup";
const unifiedMount = `${cgroupRoot}/unified`;

/** How this machine groups processes: one tree (version 2), a tree per controller (version 1), or not at all. */
export type CgroupVersion = "v1" | "v2" | "none";

/** Reads the mounts that this thread sees. */
export function cgroupVersion(): CgroupVersion {
	if (existsSync(`${cgroupRoot}/cgroup.controllers`)) {
		return "v2";
	}
	return listMounts(cgroupRoot).some((mount) => mount.type === "cgroup") ? "v1" : "none";
}

/**
 * Takes version 2 out of sight where both are mounted: crun refuses such a mixture when version 2 has controllers. To be
 * called in a mount namespace of our own only, else the whole machine would lose the mount.
 */
export function hideUnifiedHierarchy(): void {
	if (listMounts(unifiedMount).some((mount) => mount.type === "cgroup2")) {
		unmount(unifiedMount);
	}
}

/** True if the kernel ended a process of the group for want of memory. `path` is relative to each tree's root. */
export function wasOutOfMemory(path: string): boolean {
	return (
		counter(`${cgroupRoot}${path}/memory.events`, "oom_kill") > 0 ||
		counter(`${cgroupRoot}/memory${path}/memory.oom_control`, "oom_kill") > 0
	);
}

function counter(file: string, name: string): number {
	try {
		const line = readFileSync(file, "utf8")
			.split("\n")
			.find((text) => text.startsWith(`${name} `));
		return Number(line?.slice(name.length + 1) ?? 0);
	} catch {
		return 0;
	}
}
