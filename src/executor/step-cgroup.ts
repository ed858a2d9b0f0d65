import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SlipwayError, toError } from "../errors/errors.ts";
import { createEventCounter, type EventCounter } from "../sys/event-counter.ts";
import { type CgroupController, type CgroupVersion, cgroupRoot, hasController } from "./cgroups.ts";
import type { Resources } from "./executor.ts";

/**
 * The control group around a step's own: it outlives what the runtime makes and removes, so that it can be asked afterwards
 * whether the kernel killed for want of memory.
 */
export interface StepCgroup extends Disposable {
	/** For the runtime, absolute below the cgroup mount; undefined where there are no control groups. */
	readonly path: string | undefined;
	/** What is left for `removeStepCgroup` when this is not disposed; undefined if nothing is. */
	readonly outerPath: string | undefined;
	/** What the runtime has to set; the rest is set here. */
	readonly resources: Resources | undefined;
	/** True if the kernel ended a process of the step for want of memory. */
	wasOutOfMemory(): boolean;
}

export interface StepCgroupOptions {
	readonly version: CgroupVersion;
	/** Absolute, `/slipway`. */
	readonly parent: string;
	readonly id: string;
	readonly resources: Resources | undefined;
	/** Default `/sys/fs/cgroup`; tests have their own. */
	readonly root?: string;
}

export function createStepCgroup(options: StepCgroupOptions): StepCgroup {
	const { version, parent, id, resources } = options;
	const path = `${parent}/${id}`;
	checkControllers(options);
	switch (version) {
		case "none":
			return plain(undefined, resources);
		case "v2":
			return versionTwo(path, options);
		case "v1":
			return resources?.memory === undefined && resources?.memorySwap === undefined
				? plain(path, resources)
				: versionOne(path, options);
	}
}

function checkControllers({ version, resources = {}, root }: StepCgroupOptions): void {
	const wanted: readonly (readonly [CgroupController, readonly (string | number | undefined)[]])[] = [
		["memory", [resources.memory, resources.memorySwap]],
		["cpu", [resources.cpuShares, resources.cpuPeriod, resources.cpuQuota]],
		["cpuset", [resources.cpusetCpus, resources.cpusetMems]],
	];
	for (const [controller, values] of wanted) {
		if (values.some((value) => value !== undefined) && !hasController(controller, version, root)) {
			throw new SlipwayError(
				"failed-precondition",
				`a step cannot be limited as asked: this machine's control groups have no ${controller} controller`,
			);
		}
	}
}

/** The group that the runtime makes in ours. */
const inner = "step";

/** Nothing around what the runtime makes. */
function plain(path: string | undefined, resources: Resources | undefined): StepCgroup {
	return { path, outerPath: undefined, resources, wasOutOfMemory: () => false, [Symbol.dispose]() {} };
}

/** Removes what a killed builder left of a step's group, in all hierarchies. */
export function removeStepCgroup(path: string, root: string = cgroupRoot): void {
	removeGroup(join(root, path));
	for (const hierarchy of readdirSync(root)) {
		removeGroup(join(root, hierarchy, path));
	}
}

/** Counts of version 2 include those of groups below, also after these are gone. */
function versionTwo(path: string, { resources, root = cgroupRoot }: StepCgroupOptions): StepCgroup {
	const outer = join(root, path);
	return {
		path: `${path}/${inner}`,
		outerPath: path,
		resources,
		wasOutOfMemory: () => readCounter(join(outer, "memory.events"), "oom_kill") > 0,
		[Symbol.dispose]: () => removeGroup(outer),
	};
}

const pageBytes = 4096;

/**
 * Counts of version 1 are of one group alone and go with it; but who asked a group for it is told when its limit, or that of one
 * around it, was the reason. So the limit is set around the runtime's group, where the question is asked too; the group itself, which programs
 * of the step look at, has a page more.
 */
function versionOne(path: string, { resources = {}, root = cgroupRoot }: StepCgroupOptions): StepCgroup {
	const { memory, memorySwap } = resources;
	const outer = join(root, "memory", path);
	const events = createEventCounter();
	const close = (): void => {
		events[Symbol.dispose]();
		removeStepCgroup(path, root);
	};
	try {
		mkdirSync(outer, { recursive: true });
		// The sum is never below the memory alone, at no moment.
		writeLimit(outer, "memory.limit_in_bytes", memory);
		writeLimit(outer, "memory.memsw.limit_in_bytes", memorySwap);
		askForOom(outer, events);
	} catch (error) {
		close();
		throw error;
	}
	let seen = false;
	return {
		path: `${path}/${inner}`,
		outerPath: path,
		resources: {
			...resources,
			...(memory === undefined ? {} : { memory: memory + pageBytes }),
			...(memorySwap === undefined || memorySwap < 0 ? {} : { memorySwap: memorySwap + pageBytes }),
		},
		wasOutOfMemory() {
			seen ||= events.take() > 0;
			return seen;
		},
		[Symbol.dispose]: close,
	};
}

function writeLimit(group: string, file: string, value: number | undefined): void {
	if (value === undefined) {
		return;
	}
	try {
		writeFileSync(join(group, file), String(value));
	} catch (error) {
		throw new SlipwayError(
			"failed-precondition",
			`cannot limit the memory of the step to ${value}: ${toError(error).message}`,
			{ cause: error },
		);
	}
}

/** memory.rst of the kernel's cgroup-v1 documentation, section 10. */
function askForOom(group: string, events: EventCounter): void {
	const control = openSync(join(group, "memory.oom_control"), "r");
	try {
		writeFileSync(join(group, "cgroup.event_control"), `${events.fd} ${control}`);
	} finally {
		closeSync(control);
	}
}

/** With what the runtime made in it and did not come to remove. */
function removeGroup(path: string): void {
	for (const group of [join(path, inner), path]) {
		try {
			rmdirSync(group);
		} catch {
			// Not there in this hierarchy, or still in use: `sweep` of the next builder tries again.
		}
	}
}

function readCounter(file: string, name: string): number {
	try {
		const line = readFileSync(file, "utf8")
			.split("\n")
			.find((text) => text.startsWith(`${name} `));
		return Number(line?.slice(name.length + 1) ?? 0);
	} catch {
		return 0;
	}
}
