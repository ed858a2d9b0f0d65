import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

/** A builder that is measured. Each build is a whole process, from start to exit. */
export interface Peer {
	readonly name: string;
	/**
	 * Builds `context` (its Dockerfile says `FROM base` or `FROM scratch`); the result goes to `dest` as an OCI tar, or nowhere. `args`
	 * are flags of Slipway, which its peers do not get.
	 */
	build(context: string, options: { readonly dest?: string; readonly args?: readonly string[] }): Measurement;
	/** Ends what `start` began. */
	stop(): void;
}

export interface Measurement {
	readonly seconds: number;
	/** Largest resident memory of the builder's processes together, MiB. */
	readonly memory: number;
}

const root = resolve(import.meta.dirname, "..");

export interface PeerOptions {
	/** OCI layout of the base image, tag `latest`. */
	readonly base: string;
	readonly work: string;
}

export function slipway({ base, work }: PeerOptions): Peer {
	const state = join(work, "slipway");
	// It starts with the first build, which is not counted.
	const builder = (): number[] => {
		try {
			return [Number(readFileSync(join(state, "owner"), "utf8"))];
		} catch {
			return [];
		}
	};
	return {
		name: "slipway",
		build(context, { dest, args: more = [] }) {
			const args = [
				"build",
				...more,
				"--root",
				state,
				"--progress",
				"quiet",
				"--build-context",
				`base=oci-layout://${base}:latest`,
			];
			const output = dest === undefined ? [] : ["-o", `type=oci,dest=${dest}`];
			return timed([join(root, "bin/slipway"), ...args, ...output, context], builder(), {});
		},
		stop() {
			spawnSync(join(root, "bin/slipway"), ["stop", "--root", state]);
			rmSync(state, { recursive: true, force: true });
		},
	};
}

/** The real BuildKit, if `buildctl` is on the path and `BUILDKIT_HOST` names a running daemon. */
export function buildkit({ base }: PeerOptions): Peer | undefined {
	const host = process.env["BUILDKIT_HOST"];
	if (host === undefined || spawnSync("buildctl", ["debug", "workers"], { stdio: "ignore" }).status !== 0) {
		return undefined;
	}
	const index = JSON.parse(readFileSync(join(base, "index.json"), "utf8"));
	const digest: string = index.manifests[0].digest;
	const daemon = daemonOf(host);
	return {
		name: "buildkit",
		build(context, { dest }) {
			const args = [
				"build",
				"--progress",
				"quiet",
				"--frontend",
				"dockerfile.v0",
				"--local",
				`context=${context}`,
				"--local",
				`dockerfile=${context}`,
			];
			const layout = ["--oci-layout", `base=${base}`, "--opt", `context:base=oci-layout://base@${digest}`];
			const output = dest === undefined ? [] : ["--output", `type=oci,dest=${dest}`];
			return timed(["buildctl", ...args, ...layout, ...output], daemon === undefined ? [] : [daemon], {});
		},
		stop: () => {},
	};
}

/** Debian's buildah, where no BuildKit runs. */
export function buildah({ base, work }: PeerOptions): Peer {
	const storage = ["--root", join(work, "buildah"), "--runroot", join(work, "buildah-run")];
	spawnSync("buildah", [...storage, "pull", `oci:${base}:latest`], { stdio: "ignore" });
	const image =
		spawnSync("buildah", [...storage, "images", "-q"], { encoding: "utf8" })
			.stdout.trim()
			.split("\n")[0] ?? "";
	spawnSync("buildah", [...storage, "tag", image, "localhost/base"], { stdio: "ignore" });
	return {
		name: "buildah",
		build(context, { dest }) {
			const env = { BUILDAH_ISOLATION: "oci", BUILDAH_LAYERS: "true" };
			const common = ["buildah", ...storage, "bud", "--quiet", "--layers", "-t", "result", context];
			const built = timed(common, [], env);
			if (dest === undefined) {
				return built;
			}
			const pushed = timed(
				["buildah", ...storage, "push", "--quiet", "result", `oci-archive:${dest}`],
				[],
				env,
			);
			return { seconds: built.seconds + pushed.seconds, memory: Math.max(built.memory, pushed.memory) };
		},
		stop: () => {
			spawnSync("buildah", [...storage, "rmi", "-af"], { stdio: "ignore" });
			rmSync(join(work, "buildah"), { recursive: true, force: true });
			rmSync(join(work, "buildah-run"), { recursive: true, force: true });
		},
	};
}

/** Runs a command to its end. `others` are processes that work for it, whose peak memory counts too. */
function timed(
	command: readonly string[],
	others: readonly number[],
	env: Readonly<Record<string, string>>,
): Measurement {
	for (const pid of others) {
		// Resets the peak, proc(5).
		writeFileSync(`/proc/${pid}/clear_refs`, "5");
	}
	const [program = "", ...args] = command;
	const format = join(process.env["TMPDIR"] ?? "/tmp", `bench-time-${process.pid}`);
	const start = process.hrtime.bigint();
	const run = spawnSync("/usr/bin/time", ["-f", "%M", "-o", format, program, ...args], {
		encoding: "utf8",
		env: { ...process.env, ...env, NODE_EXTRA_CA_CERTS: "" },
	});
	const seconds = Number(process.hrtime.bigint() - start) / 1e9;
	if (run.status !== 0) {
		throw new Error(`${command.join(" ")}\n${run.stderr}${run.stdout}`);
	}
	const own = Number(readFileSync(format, "utf8").trim().split("\n").at(-1)) / 1024;
	rmSync(format);
	return { seconds, memory: own + others.reduce((sum, pid) => sum + peakOf(pid), 0) };
}

function peakOf(pid: number): number {
	return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024;
}

/** The process that listens at the daemon's unix socket: the one that has the socket's inode open, proc(5). */
function daemonOf(host: string): number | undefined {
	const socket = host.replace(/^unix:\/\//, "");
	const inodes = readFileSync("/proc/net/unix", "utf8")
		.split("\n")
		.filter((line) => line.endsWith(` ${socket}`))
		.map((line) => `socket:[${line.split(/\s+/)[6]}]`);
	return readdirSync("/proc")
		.filter((name) => /^\d+$/.test(name))
		.map(Number)
		.find((pid) => {
			try {
				return readdirSync(`/proc/${pid}/fd`).some((fd) =>
					inodes.includes(readlinkSync(`/proc/${pid}/fd/${fd}`)),
				);
			} catch {
				return false;
			}
		});
}
