import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { SlipwayError, toError } from "../errors/errors.ts";
import type { DeviceEdits } from "../executor/executor.ts";
import type { Device } from "../llb/op.ts";
import { parseEdits, stringMap } from "./cdi-edits.ts";

/**
 * Devices that the operator describes for containers, by the specification of the Container Device Interface
 * (github.com/cncf-tags/container-device-interface, SPEC.md): files in JSON and YAML, each of one kind `vendor/class` with devices
 * by name. They are read anew for every use, since what a machine has changes.
 */
export interface DeviceRegistry {
	/** Full names `vendor/class=name`, sorted. */
	list(): readonly RegisteredDevice[];
	/** The full names that are meant. Throws `not-found` for one that is none and not optional. */
	find(devices: readonly Device[]): readonly string[];
	/** True if builds may use it unasked. */
	isAutoAllowed(name: string): boolean;
	/** What a container needs for them. Throws `not-found` for a full name that is none. */
	edits(names: readonly string[]): readonly DeviceEdits[];
}

export interface RegisteredDevice {
	readonly name: string;
	readonly annotations: Readonly<Record<string, string>>;
}

export interface DeviceRegistryOptions {
	/** Files of a later one replace devices of an earlier one. Those that do not exist are empty. */
	readonly directories: readonly string[];
	/** Full names or kinds that need no entitlement. */
	readonly autoAllowed: readonly string[];
	/** Told of files that cannot be used. */
	readonly warn: (message: string) => void;
}

export const defaultDeviceDirectories: readonly string[] = ["/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"];

const classAnnotation = "org.mobyproject.buildkit.device.class";
const autoAllowAnnotation = "org.mobyproject.buildkit.device.autoallow";

export function createDeviceRegistry(options: DeviceRegistryOptions): DeviceRegistry {
	const read = (): ReadonlyMap<string, Entry> => readDevices(options);
	return {
		list: () => [...read().values()].map(({ name, annotations }) => ({ name, annotations })),
		find(devices) {
			const known = devices.length === 0 ? new Map<string, Entry>() : read();
			return [...new Set(devices.flatMap((device) => findDevice(device, known)))];
		},
		isAutoAllowed(name) {
			const allowed = options.autoAllowed;
			const annotation = read().get(name)?.annotations[autoAllowAnnotation] ?? "";
			return allowed.includes(name) || allowed.includes(kindOf(name)) || isTrue(annotation);
		},
		edits(names) {
			const known = names.length === 0 ? new Map<string, Entry>() : read();
			const specs = new Set<SpecFile>();
			return names.flatMap((name) => {
				const device = known.get(name);
				if (device === undefined) {
					throw notRegistered(name);
				}
				const isFirst = !specs.has(device.spec);
				specs.add(device.spec);
				// What all devices of a file need comes once, before the first.
				return isFirst ? [device.spec.edits, device.edits] : [device.edits];
			});
		},
	};
}

interface SpecFile {
	readonly edits: DeviceEdits;
	readonly directory: number;
}

interface Entry extends RegisteredDevice {
	readonly spec: SpecFile;
	readonly edits: DeviceEdits;
}

function findDevice(device: Device, known: ReadonlyMap<string, Entry>): readonly string[] {
	const kind = kindOf(device.name);
	const name = device.name.slice(kind.length + 1);
	const all = [...known.keys()].filter((each) => kindOf(each) === kind);
	const named =
		name === "*" ? all : name === "" ? all.slice(0, 1) : all.filter((each) => each === device.name);
	const found = kind.includes("/") ? named : [];
	const meant =
		found.length > 0
			? found
			: [...known.values()]
					.filter((each) => each.annotations[classAnnotation] === device.name)
					.map((each) => each.name);
	if (meant.length === 0 && !device.optional) {
		throw notRegistered(device.name);
	}
	return meant;
}

function notRegistered(name: string): SlipwayError {
	return new SlipwayError("not-found", `required device ${JSON.stringify(name)} is not registered`);
}

function kindOf(name: string): string {
	const equals = name.indexOf("=");
	return equals === -1 ? name : name.slice(0, equals);
}

function isTrue(text: string): boolean {
	return /^(?:1|t|T|TRUE|true|True)$/.test(text);
}

/** By full name. Two of one name in directories of the same rank are neither. */
function readDevices({ directories, warn }: DeviceRegistryOptions): ReadonlyMap<string, Entry> {
	const found = new Map<string, Entry | "conflict">();
	const ranks = new Map<string, number>();
	for (const [rank, directory] of directories.entries()) {
		for (const path of specFiles(directory)) {
			let devices: readonly Entry[];
			try {
				devices = parseSpec(path, rank);
			} catch (error) {
				warn(`CDI spec ${path} is not used: ${toError(error).message}`);
				continue;
			}
			for (const device of devices) {
				const isConflict = ranks.get(device.name) === rank;
				if (isConflict) {
					warn(`CDI device ${device.name} is in several files of ${directory}, and not used`);
				}
				found.set(device.name, isConflict ? "conflict" : device);
				ranks.set(device.name, rank);
			}
		}
	}
	const entries = [...found].flatMap(([name, entry]) =>
		entry === "conflict" ? [] : [[name, entry] as const],
	);
	return new Map(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

function specFiles(directory: string): readonly string[] {
	// Few machines have any, and clients ask for the workers' devices before each build: an exception costs more than the look.
	if (!existsSync(directory)) {
		return [];
	}
	try {
		return readdirSync(directory)
			.filter((name) => /\.(?:json|ya?ml)$/.test(name))
			.sort()
			.map((name) => join(directory, name));
	} catch {
		return [];
	}
}

const kindPattern = /^[A-Za-z][A-Za-z0-9_.-]*\/[A-Za-z][A-Za-z0-9_-]*$/;
const namePattern = /^[A-Za-z0-9][A-Za-z0-9_.:-]*$/;

function parseSpec(path: string, rank: number): readonly Entry[] {
	const text = readFileSync(path, "utf8");
	const value = (path.endsWith(".json") ? JSON.parse(text) : parseYaml(text)) as {
		readonly cdiVersion?: unknown;
		readonly kind?: unknown;
		readonly annotations?: unknown;
		readonly devices?: unknown;
		readonly containerEdits?: unknown;
	} | null;
	const { kind, devices } = value ?? {};
	if (typeof value?.cdiVersion !== "string") {
		throw new SlipwayError("invalid-argument", "no cdiVersion");
	}
	if (typeof kind !== "string" || !kindPattern.test(kind)) {
		throw new SlipwayError("invalid-argument", `invalid kind ${JSON.stringify(kind)}`);
	}
	if (!Array.isArray(devices) || devices.length === 0) {
		throw new SlipwayError("invalid-argument", "no devices");
	}
	const common = stringMap(value.annotations);
	const spec: SpecFile = { edits: parseEdits(value.containerEdits), directory: rank };
	return devices.map((device: { name?: unknown; annotations?: unknown; containerEdits?: unknown }) => {
		if (typeof device?.name !== "string" || !namePattern.test(device.name)) {
			throw new SlipwayError("invalid-argument", `invalid device name ${JSON.stringify(device?.name)}`);
		}
		return {
			name: `${kind}=${device.name}`,
			annotations: { ...common, ...stringMap(device.annotations) },
			spec,
			edits: parseEdits(device.containerEdits),
		};
	});
}

/** Loaded when there is such a file. */
function parseYaml(text: string): unknown {
	const yaml = createRequire(import.meta.url)("yaml") as typeof import("yaml");
	return yaml.parse(text);
}
