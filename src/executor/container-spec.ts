import type {
	RuntimeIdMapping,
	RuntimeMount,
	RuntimeNamespace,
	RuntimeRlimit,
	RuntimeSpec,
} from "../oci/runtime-spec.ts";
import { ownIds } from "../sys/interpreter-namespace.ts";
import type { Resources, RunOptions } from "./executor.ts";
import type { UserIds } from "./passwd.ts";
import { seccompProfile } from "./seccomp.ts";

/** What a sandboxed process may do besides being a user: the defaults of containerd and Docker. */
const defaultCapabilities = [
	"CAP_CHOWN",
	"CAP_DAC_OVERRIDE",
	"CAP_FSETID",
	"CAP_FOWNER",
	"CAP_MKNOD",
	"CAP_NET_RAW",
	"CAP_SETGID",
	"CAP_SETUID",
	"CAP_SETFCAP",
	"CAP_SETPCAP",
	"CAP_NET_BIND_SERVICE",
	"CAP_SYS_CHROOT",
	"CAP_KILL",
	"CAP_AUDIT_WRITE",
];

/** All of them, in the order of their numbers, capability.h. */
const capabilityNames = [
	"CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID",
	"CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK",
	"CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT",
	"CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE",
	"CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE",
].flatMap((line) => line.split(" "));

const maskedPaths = [
	"/proc/acpi",
	"/proc/asound",
	"/proc/kcore",
	"/proc/keys",
	"/proc/latency_stats",
	"/proc/timer_list",
	"/proc/timer_stats",
	"/proc/sched_debug",
	"/sys/firmware",
	"/sys/devices/virtual/powercap",
	"/proc/scsi",
];

const readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

export interface SpecInput {
	readonly run: RunOptions;
	/** Where the root file system is mounted. */
	readonly rootfs: string;
	readonly user: UserIds;
	/** The mounts of the step, already made available under `source`. */
	readonly mounts: readonly RuntimeMount[];
	readonly hostsFile: string;
	readonly resolvConf: string;
	/** Absolute, below the cgroup mount; undefined leaves the process in our own cgroup. */
	readonly cgroupsPath: string | undefined;
	readonly resources: Resources | undefined;
	readonly pidsLimit: number | undefined;
	/** Undefined is the machine's, empty a new one. */
	readonly networkNamespace: string | undefined;
	readonly cgroupNamespace: boolean;
	/** Which ids there are: those of the machine, some of them in a user namespace, or only one there. */
	readonly ids: "all" | "mapped" | "single";
	/** Of this process: what an insecure step gets (bit set as in /proc/self/status, `CapBnd`). */
	readonly ownCapabilities: bigint;
}

/** ES2026; the compiler's library does not have it yet. */
const { rawJSON: rawJson } = JSON as unknown as { readonly rawJSON: (text: string) => unknown };

/** The text of config.json. Limits may be 2^64-1, which no JavaScript number can say. */
export function runtimeSpecJson(spec: RuntimeSpec): string {
	return JSON.stringify(spec, (_, value: unknown) =>
		typeof value === "bigint" ? rawJson(value.toString()) : value,
	);
}

/** The configuration of a build step's container: what BuildKit's default is made of. */
export function containerSpec(input: SpecInput): RuntimeSpec {
	const { run } = input;
	const insecure = run.security === "insecure";
	const capabilities = insecure
		? capabilityNames.filter((_, bit) => (input.ownCapabilities >> BigInt(bit)) & 1n)
		: defaultCapabilities;
	const seccomp = insecure ? undefined : seccompProfile(process.arch);
	return {
		ociVersion: "1.0.2",
		process: {
			...(run.io?.terminal ? { terminal: true } : {}),
			user: {
				uid: input.user.uid,
				gid: input.user.gid,
				additionalGids:
					input.ids === "single" ? [] : [...new Set([input.user.gid, ...input.user.additionalGids])],
			},
			args: run.process.args,
			env: run.process.env,
			cwd: run.process.cwd,
			capabilities: {
				bounding: capabilities,
				effective: capabilities,
				permitted: capabilities,
				...(insecure ? { inheritable: capabilities, ambient: capabilities } : {}),
			},
			rlimits: run.ulimits.map(
				({ name, soft, hard }): RuntimeRlimit => ({
					type: `RLIMIT_${name.toUpperCase()}`,
					soft: BigInt.asUintN(64, soft),
					hard: BigInt.asUintN(64, hard),
				}),
			),
			noNewPrivileges: false,
		},
		root: { path: input.rootfs, readonly: run.root.readonly },
		hostname: run.hostname ?? "buildkitsandbox",
		mounts: lastPerTarget([
			...defaultMounts(insecure).flatMap((mount) => adaptMount(mount, input.ids)),
			...sysMount(input),
			...etcMounts(input),
			...input.mounts,
		]),
		linux: {
			namespaces: namespaces(input),
			...(run.userNamespace === undefined ? {} : { uidMappings: idsOf("uid"), gidMappings: idsOf("gid") }),
			resources:
				input.ids === "all"
					? {
							devices: insecure
								? [
										{ allow: true, type: "c", access: "rwm" },
										{ allow: true, type: "b", access: "rwm" },
									]
								: [{ allow: false, access: "rwm" }],
							...resources(input.resources),
							...(input.pidsLimit === undefined ? {} : { pids: { limit: input.pidsLimit } }),
						}
					: {},
			...(input.cgroupsPath === undefined ? {} : { cgroupsPath: input.cgroupsPath }),
			...(seccomp === undefined ? {} : { seccomp }),
			maskedPaths: insecure ? [] : maskedPaths,
			readonlyPaths: insecure ? [] : readonlyPaths,
		},
	};
}

function namespaces(input: SpecInput): readonly RuntimeNamespace[] {
	const all: RuntimeNamespace[] = [{ type: "pid" }, { type: "ipc" }, { type: "uts" }, { type: "mount" }];
	if (input.networkNamespace !== undefined) {
		const path = input.networkNamespace;
		all.push(path === "" ? { type: "network" } : { type: "network", path });
	}
	if (input.cgroupNamespace) {
		all.push({ type: "cgroup" });
	}
	if (input.run.userNamespace !== undefined) {
		all.push({ type: "user", path: input.run.userNamespace });
	}
	return all;
}

/** What the namespace has already; runc wants to be told. */
function idsOf(kind: "uid" | "gid"): readonly RuntimeIdMapping[] {
	return ownIds(kind).map(({ first, count }) => ({ containerID: first, hostID: first, size: count }));
}

/** Root of a user namespace has no control groups to show, and where there is only one id no group of terminals. */
function adaptMount(mount: RuntimeMount, ids: SpecInput["ids"]): readonly RuntimeMount[] {
	if (ids === "all") {
		return [mount];
	}
	if (mount.type === "cgroup") {
		return [];
	}
	return mount.type === "devpts" && ids === "single"
		? [{ ...mount, options: (mount.options ?? []).filter((option) => !option.startsWith("gid=")) }]
		: [mount];
}

/** A user namespace mounts sysfs only where the network is one of its own; else the machine's is shown. */
function sysMount({ run, ids, networkNamespace }: SpecInput): readonly RuntimeMount[] {
	return run.userNamespace === undefined && (ids === "all" || networkNamespace !== undefined)
		? []
		: [
				{
					destination: "/sys",
					type: "bind",
					source: "/sys",
					options: ["rbind", "nosuid", "noexec", "nodev", "ro"],
				},
			];
}

/** No /run: what is there belongs to the image. */
function defaultMounts(insecure: boolean): readonly RuntimeMount[] {
	const writable = insecure ? "rw" : "ro";
	return [
		{ destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
		{
			destination: "/dev",
			type: "tmpfs",
			source: "tmpfs",
			options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
		},
		{
			destination: "/dev/pts",
			type: "devpts",
			source: "devpts",
			options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
		},
		{
			destination: "/dev/shm",
			type: "tmpfs",
			source: "shm",
			options: ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
		},
		{ destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
		{ destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", writable] },
		{
			destination: "/sys/fs/cgroup",
			type: "cgroup",
			source: "cgroup",
			options: [writable, "nosuid", "noexec", "nodev"],
		},
	];
}

function etcMounts(input: SpecInput): readonly RuntimeMount[] {
	const options = ["nosuid", "noexec", "nodev", "rbind", "ro"];
	return [
		{ destination: "/etc/resolv.conf", type: "bind", source: input.resolvConf, options },
		{ destination: "/etc/hosts", type: "bind", source: input.hostsFile, options },
	];
}

/** A step's mount takes the place of a default one at the same target. */
function lastPerTarget(mounts: readonly RuntimeMount[]): readonly RuntimeMount[] {
	const byTarget = new Map<string, RuntimeMount>();
	for (const mount of mounts) {
		byTarget.set(mount.destination, mount);
	}
	return [...byTarget.values()];
}

function resources(
	limits: Resources | undefined,
): Pick<NonNullable<RuntimeSpec["linux"]["resources"]>, "memory" | "cpu"> {
	if (limits === undefined) {
		return {};
	}
	const memory = {
		...(limits.memory === undefined ? {} : { limit: limits.memory }),
		...(limits.memorySwap === undefined ? {} : { swap: limits.memorySwap }),
	};
	const cpu = {
		...(limits.cpuShares === undefined ? {} : { shares: limits.cpuShares }),
		...(limits.cpuPeriod === undefined ? {} : { period: limits.cpuPeriod }),
		...(limits.cpuQuota === undefined ? {} : { quota: limits.cpuQuota }),
		...(limits.cpusetCpus === undefined ? {} : { cpus: limits.cpusetCpus }),
		...(limits.cpusetMems === undefined ? {} : { mems: limits.cpusetMems }),
	};
	return {
		...(Object.keys(memory).length > 0 ? { memory } : {}),
		...(Object.keys(cpu).length > 0 ? { cpu } : {}),
	};
}
