import { SlipwayError } from "../errors/errors.ts";
import type { Device } from "../llb/op.ts";
import { csvFields } from "../oci/csv-fields.ts";
import type { DeviceRegistry } from "../worker/cdi-devices.ts";
import { type Entitlement, entitlements } from "./control.ts";

/** `network.host`, `security.insecure`, `device`, `device=name[,alias=other]`. Throws `unknown`, as BuildKit does. */
export function parseEntitlement(text: string): Entitlement {
	const name = entitlementName(text);
	if (name === undefined || (name !== "device" && name !== text)) {
		throw new SlipwayError("unknown", `unknown entitlement ${text}`);
	}
	if (name === "device") {
		parseDeviceGrant(text);
		return text as Entitlement;
	}
	return name;
}

/** What a builder's configuration has to allow. */
export function entitlementName(text: string): (typeof entitlements)[number] | undefined {
	const [name] = text.split("=", 1);
	return entitlements.find((each) => each === name);
}

/** Devices that a client lets its build use: all, or by what builds call them and what they are called on the machine. */
interface DeviceGrants {
	readonly all: boolean;
	/** An empty value is the same name. */
	readonly names: ReadonlyMap<string, string>;
}

function parseDeviceGrant(text: string): readonly [string, string] | undefined {
	const value = text.slice("device=".length);
	if (value === "") {
		return undefined;
	}
	const [name = "", ...others] = csvFields(value);
	let alias = "";
	for (const field of others) {
		const [key, rest] = field.split("=", 2);
		if (rest === undefined) {
			throw new SlipwayError("unknown", `invalid device config ${JSON.stringify(field)}`);
		}
		if (key !== "alias") {
			throw new SlipwayError("unknown", `unknown device config key ${JSON.stringify(key)}`);
		}
		alias = rest;
	}
	return alias === "" ? [name, ""] : [alias, name];
}

function deviceGrants(allowed: ReadonlySet<Entitlement>): DeviceGrants {
	const grants = [...allowed].filter((each) => entitlementName(each) === "device").map(parseDeviceGrant);
	return {
		all: grants.includes(undefined),
		names: new Map(grants.filter((grant) => grant !== undefined)),
	};
}

/**
 * The devices that a step gets, by their full names where they were not granted as a whole. Throws `permission-denied` for those that
 * the client has not granted and the operator does not give to everybody.
 */
export function grantDevices(
	devices: readonly Device[],
	allowed: ReadonlySet<Entitlement>,
	registry: DeviceRegistry,
): readonly Device[] {
	const grants = deviceGrants(allowed);
	if (devices.length === 0 || grants.all) {
		return devices;
	}
	const given: Device[] = [];
	const asked: Device[] = [];
	for (const device of devices) {
		const meant = grants.names.get(device.name) ?? "";
		if (meant === "") {
			asked.push(device);
		} else {
			given.push({ ...device, name: meant });
		}
	}
	const found = registry.find(asked);
	if (found.length === 0) {
		return given;
	}
	const granted = new Set(
		[...grants.names.keys()].flatMap((name) =>
			registry.find([{ name, optional: grants.names.get(name) !== "" }]),
		),
	);
	const forbidden = found.filter((name) => !granted.has(name) && !registry.isAutoAllowed(name));
	if (forbidden.length > 0) {
		throw new SlipwayError(
			"permission-denied",
			forbidden.length === 1
				? `device ${forbidden[0]} is requested by the build but not allowed`
				: `devices ${forbidden.join(", ")} are requested by the build but not allowed`,
		);
	}
	return [...given, ...found.map((name) => ({ name, optional: false }))];
}
