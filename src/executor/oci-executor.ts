import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { canceled, SlipwayError } from "../errors/errors.ts";
import type { RuntimeMount } from "../oci/runtime-spec.ts";
import { listMounts, mount, unmount } from "../sys/mount.ts";
import { idsOfNamespace } from "../sys/namespace.ts";
import { resolveInRoot } from "../sys/root-path.ts";
import type { MountSpec } from "../sys/sys.ts";
import { type CgroupVersion, cgroupVersion, defaultPidsLimit } from "./cgroups.ts";
import { containerSpec, runtimeSpecJson } from "./container-spec.ts";
import { withDeviceEdits } from "./device-edits.ts";
import { type DnsOptions, hostsFile, resolvConf } from "./etc-files.ts";
import { execInContainer } from "./exec-in-container.ts";
import type { ContainerMount, ExecOptions, Executor, ExitStatus, RunOptions } from "./executor.ts";
import { watchMountStubs } from "./mount-stubs.ts";
import type { StepNetwork } from "./network.ts";
import type { Networks } from "./networks.ts";
import { lookupUser } from "./passwd.ts";
import { runProcess } from "./process-io.ts";
import {
	deleteContainer,
	notStarted,
	type Runtime,
	readRuntimeLog,
	runCommand,
	runtimeEnvironment,
} from "./runtime.ts";
import { createStepCgroup, removeStepCgroup, type StepCgroup } from "./step-cgroup.ts";
import { makeDirectories } from "./working-directory.ts";

export interface OciExecutorOptions {
	/** Directory of our own, on any file system: bundles, and the runtime's state. */
	readonly root: string;
	/** Called when the first container needs it, so that a build without RUN needs no runtime. */
	readonly findRuntime: () => Runtime;
	/** Called once before the first mount: puts the calling thread into a mount namespace of its own. */
	readonly beforeMounts?: () => void;
	readonly networks: Networks;
	/** What steps' resolv.conf says in place of the machine's. */
	readonly dns?: DnsOptions;
	/** Where steps' control groups are that name no parent of their own. Default `/slipway`. */
	readonly cgroupParent?: string;
}

/** An executor on an OCI runtime. Everything of a container is below `<root>/containers/<id>`. */
export function createOciExecutor(options: OciExecutorOptions): Executor {
	return new OciExecutor(options);
}

class OciExecutor implements Executor {
	readonly #options: OciExecutorOptions;
	readonly #containers: string;
	/** Of processes that were started in running containers. */
	readonly #notes: string;
	#runtime: Runtime | undefined;
	#cgroups: CgroupVersion | undefined;
	#pidsLimit: number | undefined;

	constructor(options: OciExecutorOptions) {
		this.#options = options;
		this.#containers = join(options.root, "containers");
		this.#notes = join(options.root, "processes");
	}

	async run(run: RunOptions): Promise<ExitStatus> {
		run.signal.throwIfAborted();
		if (!/^[a-z0-9]+$/i.test(run.id)) {
			throw new SlipwayError("invalid-argument", `invalid container id ${JSON.stringify(run.id)}`);
		}
		this.#options.beforeMounts?.();
		this.#runtime ??= this.#options.findRuntime();
		this.#cgroups ??= cgroupVersion();
		this.#pidsLimit ??= defaultPidsLimit(this.#cgroups);
		const bundle = join(this.#containers, run.id);
		mkdirSync(bundle, { recursive: true, mode: 0o711 });
		try {
			const network = await this.#options.networks.acquire(run.network, { signal: run.signal });
			try {
				using mounted = new MountedTrees(bundle);
				using cgroup = this.#stepCgroup(run, this.#cgroups, bundle);
				return await this.#runInBundle(run, { runtime: this.#runtime, cgroup, network, bundle, mounted });
			} finally {
				// A privileged process may have changed the network that it was in.
				await network.release({ reusable: run.security === "sandbox" });
			}
		} finally {
			rmSync(bundle, { recursive: true, force: true });
		}
	}

	#stepCgroup(run: RunOptions, version: CgroupVersion, bundle: string): StepCgroup {
		const parent = run.cgroupParent === undefined || run.cgroupParent === "" ? undefined : run.cgroupParent;
		const cgroup = createStepCgroup({
			version,
			parent: cgroupParent(parent ?? this.#options.cgroupParent),
			id: run.id,
			resources: run.resources,
		});
		if (cgroup.outerPath !== undefined) {
			// For whoever sweeps after a kill.
			writeInto(bundle, cgroupNote, cgroup.outerPath);
		}
		return cgroup;
	}

	async #runInBundle(
		run: RunOptions,
		{ runtime, cgroup, network, bundle, mounted }: BundleContext,
	): Promise<ExitStatus> {
		const rootfs = mounted.mount("rootfs", run.root.mounts);
		const removeStubs = watchMountStubs(
			rootfs,
			["/etc/resolv.conf", "/etc/hosts", ...targetsOf(run)],
			run.removeMountStubsRecursive,
		);
		try {
			const ids = idsOfNamespace();
			const user = lookupUser(rootfs, run.process.user);
			if (ids === "single" && (user.uid !== 0 || user.gid !== 0)) {
				throw new SlipwayError(
					"failed-precondition",
					`a step cannot run as user ${user.uid}:${user.gid} here, where there is only one user id: add subordinate ids, see 'slipway doctor'`,
				);
			}
			if (!run.root.readonly) {
				// It stays in the layer, and crun would make it with a sticky bit, runc without.
				makeDirectories(rootfs, "/dev", { mode: 0o755, uid: 0, gid: 0 });
			}
			makeDirectories(rootfs, run.process.cwd, { mode: 0o755, uid: user.uid, gid: user.gid });
			const nameservers = resolvConf({
				sharesHostNetwork: network.namespacePath === undefined,
				reachable: network.nameservers,
				...(this.#options.dns === undefined ? {} : { dns: this.#options.dns }),
			});
			refuseRunc(runtime, run, network.namespacePath);
			const spec = containerSpec({
				run,
				rootfs,
				user,
				mounts: run.mounts.map((each, index) => runtimeMount(each, `mount${index}`, mounted)),
				hostsFile: writeInto(bundle, "hosts", hostsFile(run.hostname ?? "buildkitsandbox", run.extraHosts)),
				resolvConf: writeInto(bundle, "resolv.conf", nameservers),
				cgroupsPath: cgroup.path,
				resources: cgroup.resources,
				pidsLimit: this.#pidsLimit,
				networkNamespace: network.namespacePath,
				cgroupNamespace: this.#cgroups === "v2",
				ids,
				ownCapabilities: boundingSet(),
			});
			writeInto(bundle, "config.json", runtimeSpecJson(withDeviceEdits(spec, run.devices ?? [])));
			return await this.#runContainer(run, { runtime, cgroup, bundle });
		} finally {
			removeStubs();
		}
	}

	async #runContainer(
		run: RunOptions,
		{ runtime, cgroup, bundle }: Pick<BundleContext, "runtime" | "cgroup" | "bundle">,
	): Promise<ExitStatus> {
		const container = {
			id: run.id,
			bundle,
			pidFile: join(bundle, "pid"),
			logFile: join(bundle, "log"),
		};
		const status = await runProcess({
			argv: (console) => runCommand(runtime, container, console),
			sendsTerminal: runtime.name === "crun",
			env: runtimeEnvironment,
			pidFile: container.pidFile,
			io: run.io ?? {},
			onOutput: run.onOutput,
			onStarted: run.onStarted,
			signal: run.signal,
		});
		const outOfMemory = status.code !== 0 && cgroup.wasOutOfMemory();
		const log = status.code === 0 ? undefined : readRuntimeLog(container.logFile);
		if (run.signal.aborted || status.signal !== undefined || log !== undefined) {
			// The runtime did not come to its own clean-up.
			await deleteContainer(runtime, run.id);
		}
		if (run.signal.aborted) {
			throw canceled(run.signal.reason);
		}
		if (log !== undefined) {
			throw notStarted(runtime, status.code, log);
		}
		return { code: status.code, outOfMemory };
	}

	async exec(options: ExecOptions): Promise<ExitStatus> {
		const bundle = join(this.#containers, options.id);
		if (this.#runtime === undefined || !existsSync(bundle)) {
			throw new SlipwayError("not-found", `container ${options.id} does not run`);
		}
		return await execInContainer(this.#runtime, { bundle, notes: this.#notes }, options);
	}

	async sweep(): Promise<void> {
		rmSync(this.#notes, { recursive: true, force: true });
		let left: readonly string[];
		try {
			left = readdirSync(this.#containers);
		} catch {
			return;
		}
		if (left.length === 0) {
			return;
		}
		this.#runtime ??= this.#options.findRuntime();
		for (const id of left) {
			await deleteContainer(this.#runtime, id);
			const bundle = join(this.#containers, id);
			for (const entry of listMounts(bundle).reverse()) {
				unmount(entry.target, { detach: true });
			}
			removeNotedCgroup(bundle);
			rmSync(bundle, { recursive: true, force: true });
		}
	}
}

/** runc enters the user namespace first, and then may not enter a network that belongs to the one around it. */
function refuseRunc(runtime: Runtime, { userNamespace }: RunOptions, network: string | undefined): void {
	if (runtime.name === "runc" && userNamespace !== undefined && network !== undefined && network !== "") {
		throw new SlipwayError(
			"failed-precondition",
			"runc cannot run an emulated step in a network of its own: install crun, or build with --network host",
		);
	}
}

interface BundleContext {
	readonly runtime: Runtime;
	readonly cgroup: StepCgroup;
	readonly network: StepNetwork;
	readonly bundle: string;
	readonly mounted: MountedTrees;
}

/** The trees that a container needs, mounted below its bundle; unmounted in reverse when disposed. */
class MountedTrees implements Disposable {
	readonly #bundle: string;
	readonly #targets: string[] = [];

	constructor(bundle: string) {
		this.#bundle = bundle;
	}

	/** Mounts all of them on one new directory (each on top of the one before) and gives its path. */
	mount(name: string, mounts: readonly MountSpec[]): string {
		const target = join(this.#bundle, name);
		mkdirSync(target, { mode: 0o700 });
		for (const spec of mounts) {
			mount(spec, target);
			this.#targets.push(target);
		}
		return target;
	}

	[Symbol.dispose](): void {
		for (const target of this.#targets.splice(0).reverse()) {
			// A process that outlived its container, or a slow device, may still look at it: nobody waits for that.
			unmount(target, { detach: true });
		}
	}
}

function targetsOf({ mounts, devices = [] }: RunOptions): readonly string[] {
	const ofDevices = devices.flatMap((edits) => edits.mounts.map((mount) => mount.containerPath));
	return [...mounts.map((mount) => mount.target), ...ofDevices];
}

function runtimeMount(each: ContainerMount, name: string, mounted: MountedTrees): RuntimeMount {
	const destination = each.target;
	const readonlyOption = each.readonly ? ["ro"] : ["rw"];
	switch (each.source.kind) {
		case "tmpfs": {
			const size = each.source.sizeBytes === undefined ? [] : [`size=${each.source.sizeBytes}`];
			return {
				destination,
				type: "tmpfs",
				source: "tmpfs",
				options: ["nosuid", ...size, ...(each.readonly ? ["ro"] : [])],
			};
		}
		case "host":
			return {
				destination,
				type: "bind",
				source: each.source.path,
				options: ["rbind", ...each.source.options, ...readonlyOption],
			};
		case "tree": {
			const only = each.source.mounts.length === 1 ? each.source.mounts[0] : undefined;
			const tree = only?.type === "bind" ? only.source : mounted.mount(name, each.source.mounts);
			const readonly = each.readonly || (only?.type === "bind" && only.options.includes("ro"));
			const source = selectPath(tree, each.source.selector, destination);
			return { destination, type: "bind", source, options: ["rbind", readonly ? "ro" : "rw"] };
		}
	}
}

function selectPath(tree: string, selector: string, destination: string): string {
	const path = resolveInRoot(tree, selector);
	try {
		// Not stat: a name that ends in a link was resolved above, inside of the tree.
		readdirSync(path);
	} catch (error) {
		if ((error as NodeJS.ErrnoException).code === "ENOENT") {
			throw new SlipwayError(
				"not-found",
				`failed to mount ${destination}: ${selector}: no such file or directory in the source of the mount`,
				{ cause: error },
			);
		}
	}
	return path;
}

function cgroupParent(parent: string | undefined): string {
	return parent === undefined || parent === "" ? "/slipway" : `/${parent.replace(/^\/+|\/+$/g, "")}/slipway`;
}

/** The file of a bundle that names the control group of its step. */
const cgroupNote = "cgroup";

function removeNotedCgroup(bundle: string): void {
	let path: string;
	try {
		path = readFileSync(join(bundle, cgroupNote), "utf8");
	} catch {
		return;
	}
	removeStepCgroup(path);
}

function writeInto(directory: string, name: string, text: string): string {
	const path = join(directory, name);
	writeFileSync(path, text, { mode: 0o644 });
	return path;
}

function boundingSet(): bigint {
	const line = /^CapBnd:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"));
	return BigInt(`0x${line?.[1] ?? "0"}`);
}
