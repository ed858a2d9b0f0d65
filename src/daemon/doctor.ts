import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync, readFileSync, statfsSync } from "node:fs";
import { release, userInfo } from "node:os";
import { dirname } from "node:path";
import { findProgram } from "../sys/find-program.ts";
import { defaultRoot, ownUid } from "./default-root.ts";
import { type IdPlan, planIds } from "./user-namespace.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** What was found of one thing that builds need. */
export interface Finding {
	/** `lacking`: something does not work or is lost; `bad`: nothing can be built. */
	readonly state: "good" | "lacking" | "bad";
	readonly subject: string;
	readonly text: string;
	/** What to do. */
	readonly advice?: string;
}

export interface Examination {
	readonly mode: {
		readonly name: "root" | "rootless" | "rootless with one id" | "none";
		/** Why, and what it loses. */
		readonly text: string;
	};
	readonly findings: readonly Finding[];
}

/** Tries what can be tried without changing anything, and reads the rest. */
export async function examineMachine(env: Env): Promise<Examination> {
	const isRoot = ownUid(env) === 0;
	const ids = isRoot ? undefined : planIds(env);
	const namespace = isRoot ? undefined : userNamespaceFinding();
	const findings = [
		...(isRoot ? [] : [namespace as Finding, idsFinding(ids as IdPlan)]),
		overlayFinding(env, { isRoot, ids }),
		runtimeFinding(env),
		cgroupFinding(isRoot),
		networkFinding(env, isRoot),
		...programFindings(env),
		...foreignFinding(env),
		diskFinding(env),
	];
	return { mode: modeOf(isRoot, ids, namespace), findings };
}

function modeOf(
	isRoot: boolean,
	ids: IdPlan | undefined,
	namespace: Finding | undefined,
): Examination["mode"] {
	if (isRoot) {
		return {
			name: "root",
			text: "Nothing is lost: steps are limited, have networks of their own and any owner.",
		};
	}
	if (namespace?.state === "bad") {
		return {
			name: "none",
			text: "This user cannot build here; a builder elsewhere can be used with --builder.",
		};
	}
	if (ids?.kind === "many") {
		return {
			name: "rootless",
			text: "The builder is root of a user namespace: no limits of memory and CPU, and no devices.",
		};
	}
	return {
		name: "rootless with one id",
		text: "As rootless; and all files of images belong to root, steps run as no other user, and apt-get in a step needs -o APT::Sandbox::User=root.",
	};
}

function readSetting(name: string): string | undefined {
	try {
		return readFileSync(`/proc/sys/${name}`, "utf8").trim();
	} catch {
		return undefined;
	}
}

function succeeds(program: string, args: readonly string[]): { readonly ok: boolean; readonly said: string } {
	const { status, stderr, error } = spawnSync(program, args, { encoding: "utf8", timeout: 10_000 });
	return { ok: status === 0, said: (stderr || error?.message || "").trim().split("\n")[0] ?? "" };
}

function userNamespaceFinding(): Finding {
	const subject = "user namespaces";
	const { ok, said } = succeeds("unshare", ["--user", "--map-root-user", "--mount", "true"]);
	if (ok) {
		return { state: "good", subject, text: "this user may make them" };
	}
	const blocked = [
		["kernel/unprivileged_userns_clone", "0", "1"],
		["kernel/apparmor_restrict_unprivileged_userns", "1", "0"],
		["user/max_user_namespaces", "0", "15000"],
	].find(([name = "", value]) => readSetting(name) === value);
	const [name, , wanted] = blocked ?? [];
	return {
		state: "bad",
		subject,
		text: `this user may not make them: ${said}`,
		advice:
			name === undefined
				? "in a container, it has to be started with a seccomp profile that allows unshare"
				: `root can allow them: sysctl -w ${name.replaceAll("/", ".")}=${wanted}`,
	};
}

function idsFinding(ids: IdPlan): Finding {
	const subject = "user ids";
	if (ids.kind === "single") {
		return { state: "lacking", subject, text: "only one", advice: ids.why };
	}
	const count = ids.uids.reduce((sum, range) => sum + range.count, 0);
	return {
		state: "good",
		subject,
		text: `${count}, from /etc/subuid and /etc/subgid of ${userInfo().username}`,
	};
}

function overlayFinding(
	env: Env,
	{ isRoot, ids }: { readonly isRoot: boolean; readonly ids: IdPlan | undefined },
): Finding {
	const subject = "layers";
	const state = existingParent(defaultRoot(env));
	const options = isRoot ? "" : ",userxattr";
	// In a mount namespace that ends with the try.
	const script = `d=$(mktemp -d -p "$0") && cd "$d" && mkdir l u w m && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w${options} none m; r=$?; umount m 2>/dev/null; cd / && rm -rf "$d"; exit $r`;
	const user = isRoot ? [] : ["--user", "--map-root-user"];
	const { ok, said } = succeeds("unshare", [...user, "--mount", "sh", "-c", script, state]);
	if (ok) {
		return { state: "good", subject, text: `overlayfs works on ${state}` };
	}
	return {
		state: "lacking",
		subject,
		text: `copied, since overlayfs does not work on ${state}${said === "" ? "" : `: ${said}`}; slower, and each takes its whole size`,
		advice:
			!isRoot && kernelBefore(5, 11)
				? `Linux ${release()} does not let users mount it: 5.11 and later do`
				: `use a state directory on another file system, such as ext4, xfs or btrfs, with --root${ids === undefined ? "" : " or $XDG_DATA_HOME"}`,
	};
}

function kernelBefore(major: number, minor: number): boolean {
	const [ours = 0, oursMinor = 0] = release().split(".").map(Number);
	return ours < major || (ours === major && oursMinor < minor);
}

function existingParent(path: string): string {
	return existsSync(path) ? path : existingParent(dirname(path));
}

function runtimeFinding(env: Env): Finding {
	const subject = "RUN";
	const found = ["crun", "runc"]
		.map((name) => findProgram(name, env["PATH"] ?? ""))
		.find((path) => path !== undefined);
	if (found === undefined) {
		return {
			state: "lacking",
			subject,
			text: "neither crun nor runc on PATH: only Dockerfiles without RUN can be built",
			advice: "on Debian: apt-get install crun",
		};
	}
	return {
		state: "good",
		subject,
		text: `${found}${found.endsWith("runc") ? "; crun would take a third of the time for each step" : ""}`,
	};
}

function cgroupFinding(isRoot: boolean): Finding {
	const subject = "limits";
	if (!isRoot) {
		return {
			state: "lacking",
			subject,
			text: "no control groups for users: --memory and --cpus do not work, a step that forks without end is not stopped",
		};
	}
	const version = existsSync("/sys/fs/cgroup/cgroup.controllers")
		? "version 2"
		: existsSync("/sys/fs/cgroup/memory")
			? "version 1"
			: undefined;
	return version === undefined
		? { state: "lacking", subject, text: "no control groups are mounted: --memory and --cpus do not work" }
		: { state: "good", subject, text: `control groups, ${version}` };
}

function networkFinding(env: Env, isRoot: boolean): Finding {
	const subject = "network of RUN";
	if (isRoot) {
		return { state: "good", subject, text: "of its own, routed by the kernel" };
	}
	const carrier = ["slirp4netns", "pasta"].find((name) => findProgram(name, env["PATH"] ?? "") !== undefined);
	const text = "the machine's own, or none";
	if (carrier === undefined) {
		return {
			state: "lacking",
			subject,
			text: `${text}: a user has no way of his own to make another`,
			advice: "for a network of its own: apt-get install slirp4netns",
		};
	}
	try {
		accessSync("/dev/net/tun", constants.R_OK | constants.W_OK);
	} catch {
		return {
			state: "lacking",
			subject,
			text: `${text}: ${carrier} cannot open /dev/net/tun`,
			advice: "for a network of its own: chmod 666 /dev/net/tun",
		};
	}
	return { state: "good", subject, text: `of its own, with ${carrier}` };
}

/** What some instructions need. */
const programs: readonly (readonly [name: string, use: string, debianPackage: string])[] = [
	["git", "git contexts and ADD of repositories", "git"],
	["xz", "ADD of .tar.xz", "xz-utils"],
	["bzip2", "ADD of .tar.bz2", "bzip2"],
];

function programFindings(env: Env): readonly Finding[] {
	return programs.map(([name, use, debianPackage]) => {
		const found = findProgram(name, env["PATH"] ?? "");
		return found === undefined
			? {
					state: "lacking" as const,
					subject: name,
					text: `not on PATH: no ${use}`,
					advice: `on Debian: apt-get install ${debianPackage}`,
				}
			: { state: "good" as const, subject: name, text: `${found}, for ${use}` };
	});
}

function foreignFinding(env: Env): readonly Finding[] {
	const others = ["aarch64", "x86_64", "arm", "riscv64", "s390x", "ppc64le"];
	const registered = others.filter((arch) => existsSync(`/proc/sys/fs/binfmt_misc/qemu-${arch}`));
	const onPath = others.filter((arch) =>
		[`buildkit-qemu-${arch}`, `qemu-${arch}-static`, `qemu-${arch}`].some(
			(name) => findProgram(name, env["PATH"] ?? "") !== undefined,
		),
	);
	const all = [...new Set([...registered, ...onPath])];
	return [
		all.length === 0
			? {
					state: "lacking",
					subject: "foreign platforms",
					text: "RUN works for this machine's platform only",
					advice: "on Debian: apt-get install qemu-user-static",
				}
			: { state: "good", subject: "foreign platforms", text: `QEMU for ${all.join(", ")}` },
	];
}

function diskFinding(env: Env): Finding {
	const path = existingParent(defaultRoot(env));
	const { bavail, bsize } = statfsSync(path);
	const gigabytes = (bavail * bsize) / 1e9;
	const text = `${gigabytes.toFixed(1)} GB free at ${path}`;
	return gigabytes < 2
		? {
				state: "lacking",
				subject: "disk",
				text,
				advice: "'slipway prune' removes what builds no longer need",
			}
		: { state: "good", subject: "disk", text };
}
