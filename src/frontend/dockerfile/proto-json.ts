import {
	CacheSharingOpt,
	MountContentCache,
	MountType,
	NetMode,
	SecurityMode,
} from "../../api/generated/ops.ts";

/**
 * Messages of the build graph as `protojson` writes them: fields in the order of their declaration, nothing that has
 * its default, enums by name, numbers of 64 bits as texts. By field name, which in this package says the type.
 */
const enumsByField: ReadonlyMap<string, Readonly<Record<string, number>>> = new Map<
	string,
	Readonly<Record<string, number>>
>([
	["network", NetMode],
	["security", SecurityMode],
	["mountType", MountType],
	["sharing", CacheSharingOpt],
	["contentCache", MountContentCache],
]);

const wideNumbers: ReadonlySet<string> = new Set(
	"index input output secondaryInput builder outputs size memory memorySwap cpuShares cpuPeriod cpuQuota".split(
		" ",
	),
);

export function messageJson(message: object): object {
	const fields: Record<string, unknown> = {};
	for (const [name, value] of Object.entries(message)) {
		if (isOneof(value)) {
			fields[value.$case] = fieldJson(value.$case, value.value);
		} else if (!isDefault(value) && name !== "_unknownFields") {
			fields[name] = fieldJson(name, value);
		}
	}
	return fields;
}

interface Oneof {
	readonly $case: string;
	readonly value: unknown;
}

function isOneof(value: unknown): value is Oneof {
	return typeof value === "object" && value !== null && "$case" in value;
}

function isDefault(value: unknown): boolean {
	return (
		value === undefined ||
		value === "" ||
		value === "0" ||
		value === 0 ||
		value === false ||
		(Array.isArray(value) && value.length === 0) ||
		(value instanceof Map && value.size === 0) ||
		(value instanceof Uint8Array && value.length === 0)
	);
}

function fieldJson(name: string, value: unknown): unknown {
	if (Array.isArray(value)) {
		return value.map((item) => fieldJson(name, item));
	}
	if (value instanceof Map) {
		return new Map([...value].map(([key, item]) => [key, fieldJson("", item)]));
	}
	if (value instanceof Uint8Array) {
		return value;
	}
	if (typeof value === "object" && value !== null) {
		return messageJson(value);
	}
	if (typeof value === "number") {
		const names = enumsByField.get(name);
		const found =
			names === undefined ? undefined : Object.entries(names).find(([, number]) => number === value);
		return found?.[0] ?? (wideNumbers.has(name) ? String(value) : value);
	}
	return value;
}
