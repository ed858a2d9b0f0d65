import { existsSync, readFileSync } from "node:fs";
import { listMounts, mount, unmount } from "../sys/mount.ts";
import { inUserNamespace } from "../sys/namespace.ts";

export const cgroupRoot = "/sys/fs/cgroup";
const unifiedMount = `${cgroupRoot}/unified`;

/** How this machine groups processes: one tree (version 2), a tree per controller (version 1), or not at all. */
export type CgroupVersion = "v1" | "v2" | "none";

/** Reads the mounts that this thread sees. Root of a user namespace only cannot make groups. */
export function cgroupVersion(): CgroupVersion {
	if (inUserNamespace()) {
		return "none";
	}
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
	if (!listMounts(unifiedMount).some((each) => each.type === "cgroup2")) {
		return;
	}
	if (inUserNamespace()) {
		// What the machine mounted is not for a user namespace to unmount.
		mount({ type: "tmpfs", source: "none", options: ["ro", "size=0"] }, unifiedMount);
	} else {
		unmount(unifiedMount);
	}
}

export type CgroupController = "cpu" | "cpuset" | "memory" | "pids";

/** True if groups of this machine can be limited by it. `root` is for tests. */
export function hasController(
	name: CgroupController,
	version: CgroupVersion,
	root: string = cgroupRoot,
): boolean {
	switch (version) {
		case "none":
			return false;
		case "v1":
			return existsSync(`${root}/${name}/cgroup.procs`);
		case "v2":
			try {
				return readFileSync(`${root}/cgroup.controllers`, "utf8").trim().split(" ").includes(name);
			} catch {
				return false;
			}
	}
}

const mostProcesses = 32_768;

/**
 * How many processes and threads a step may have at once: a quarter of what the machine can have, so that one that forks without
 * end leaves enough to everybody else. Undefined where that cannot be limited.
 */
export function defaultPidsLimit(version: CgroupVersion): number | undefined {
	if (!hasController("pids", version)) {
		return undefined;
	}
	const limits = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"].map((file) => {
		try {
			return Number(readFileSync(file, "utf8"));
		} catch {
			return mostProcesses;
		}
	});
	return Math.max(1024, Math.min(mostProcesses, Math.floor(Math.min(...limits) / 4)));
}
