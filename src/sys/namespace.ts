import { readFileSync } from "node:fs";
import { cFunction, check } from "./ffi.ts";
import type { Namespace } from "./sys.ts";

const cloneFlags: Readonly<Record<Namespace, number>> = {
	mount: 0x0002_0000,
	cgroup: 0x0200_0000,
	uts: 0x0400_0000,
	ipc: 0x0800_0000,
	user: 0x1000_0000,
	pid: 0x2000_0000,
	net: 0x4000_0000,
};

const unshareCall = cFunction<[number]>("unshare", "int", ["int"]);
const setnsCall = cFunction<[number, number]>("setns", "int", ["int", "int"]);
const prctl = cFunction<[number, number, number, number, number]>("prctl", "int", [
	"int",
	"long",
	"long",
	"long",
	"long",
]);

/**
 * Moves the calling *thread* into new namespaces. Threads that exist already, such as those behind Node's asynchronous
 * file calls, stay where they are; threads started later follow. So call it first of all in a process, or not at all. A
 * user namespace is refused by the kernel (EINVAL) in a process of several threads, which Node always is.
 */
export function unshare(namespaces: readonly Namespace[]): void {
	const flags = namespaces.reduce((all, name) => all | cloneFlags[name], 0);
	check(unshareCall(flags), () => `unshare ${namespaces.join(", ")}`);
}

/** Moves the calling thread into the namespace behind the descriptor (of /proc/<pid>/ns/<name>, or a bind mount of it). */
export function enterNamespace(fd: number, namespace: Namespace): void {
	check(setnsCall(fd, cloneFlags[namespace]), () => `setns ${namespace} of descriptor ${fd}`);
}

const prSetChildSubreaper = 36;

/** Orphans below this process become its children, so that none outlives it unseen. Whoever asks must reap them. */
export function becomeSubreaper(): void {
	check(prctl(prSetChildSubreaper, 1, 0, 0, 0), () => "prctl PR_SET_CHILD_SUBREAPER");
}

/** True if user ids here are not those of the machine: devices cannot be made, `trusted.` attributes not be set. */
export function inUserNamespace(): boolean {
	return idsOfNamespace() !== "all";
}

/** Which user ids there are here: all of the machine, some of them in a user namespace, or in there only one. */
export function idsOfNamespace(): "all" | "mapped" | "single" {
	let map: string;
	try {
		map = readFileSync("/proc/self/uid_map", "utf8");
	} catch {
		// A kernel without user namespaces.
		return "all";
	}
	if (/^\s*0\s+0\s+4294967295\s*$/.test(map)) {
		return "all";
	}
	return /^\s*\d+\s+\d+\s+1\s*$/.test(map) ? "single" : "mapped";
}

/** Numbers of capabilities that are asked for, capability.h. */
const capabilityBits = {
	chown: 0,
	"dac-override": 1,
	mknod: 27,
	"net-admin": 12,
	"sys-admin": 21,
	"sys-chroot": 18,
	setfcap: 31,
} as const;

export type Capability = keyof typeof capabilityBits;

/** True if this process has the capability in effect. */
export function hasCapability(name: Capability): boolean {
	const line = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"));
	return ((BigInt(`0x${line?.[1] ?? "0"}`) >> BigInt(capabilityBits[name])) & 1n) === 1n;
}
