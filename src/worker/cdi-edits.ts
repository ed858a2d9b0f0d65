import { SlipwayError } from "../errors/errors.ts";
import type { DeviceEdits, DeviceHook, DeviceMount, DeviceNode } from "../executor/executor.ts";

/** `containerEdits` of a CDI file: all of it is understood, or the file is refused. */
export function parseEdits(value: unknown): DeviceEdits {
	if (value === undefined || value === null) {
		return noEdits;
	}
	const { env, deviceNodes, mounts, hooks, additionalGids, ...others } = objectOf(value, "containerEdits");
	const [unknown] = Object.keys(others);
	if (unknown !== undefined) {
		throw new SlipwayError("unimplemented", `containerEdits.${unknown} is not supported`);
	}
	return {
		env: strings(env, "env"),
		deviceNodes: list(deviceNodes, "deviceNodes").map(parseNode),
		mounts: list(mounts, "mounts").map(parseMount),
		hooks: list(hooks, "hooks").map(parseHook),
		additionalGids: list(additionalGids, "additionalGids").map(
			(each) => wholeNumber(each, "additionalGids") ?? 0,
		),
	};
}

const noEdits: DeviceEdits = { env: [], deviceNodes: [], mounts: [], hooks: [], additionalGids: [] };

function parseNode(value: unknown): DeviceNode {
	const node = objectOf(value, "deviceNodes");
	const type = text(node["type"], "type");
	if (type !== "" && type !== "b" && type !== "c" && type !== "u" && type !== "p") {
		throw invalid("type", type);
	}
	const permissions = text(node["permissions"], "permissions");
	if (/[^rwm]/.test(permissions)) {
		throw invalid("permissions", permissions);
	}
	const path = required(node["path"], "path");
	const optional = {
		major: wholeNumber(node["major"], "major"),
		minor: wholeNumber(node["minor"], "minor"),
		fileMode: wholeNumber(node["fileMode"], "fileMode"),
		uid: wholeNumber(node["uid"], "uid"),
		gid: wholeNumber(node["gid"], "gid"),
	};
	return {
		path,
		hostPath: text(node["hostPath"], "hostPath") || path,
		...(type === "" ? {} : { type }),
		permissions: permissions || "rwm",
		...(Object.fromEntries(Object.entries(optional).filter(([, each]) => each !== undefined)) as Pick<
			DeviceNode,
			"major" | "minor" | "fileMode" | "uid" | "gid"
		>),
	};
}

function parseMount(value: unknown): DeviceMount {
	const mount = objectOf(value, "mounts");
	return {
		hostPath: required(mount["hostPath"], "hostPath"),
		containerPath: required(mount["containerPath"], "containerPath"),
		type: text(mount["type"], "type"),
		options: strings(mount["options"], "options"),
	};
}

const hookNames = [
	"prestart",
	"createRuntime",
	"createContainer",
	"startContainer",
	"poststart",
	"poststop",
] as const;

function parseHook(value: unknown): DeviceHook {
	const hook = objectOf(value, "hooks");
	const name = required(hook["hookName"], "hookName");
	const known = hookNames.find((each) => each === name);
	if (known === undefined) {
		throw invalid("hookName", name);
	}
	const timeout = wholeNumber(hook["timeout"], "timeout");
	return {
		name: known,
		path: required(hook["path"], "path"),
		args: strings(hook["args"], "args"),
		env: strings(hook["env"], "env"),
		...(timeout === undefined ? {} : { timeout }),
	};
}

export function stringMap(value: unknown): Readonly<Record<string, string>> {
	if (value === undefined || value === null) {
		return {};
	}
	return Object.fromEntries(
		Object.entries(objectOf(value, "annotations")).map(([key, each]) => [key, text(each, key)]),
	);
}

function objectOf(value: unknown, what: string): Readonly<Record<string, unknown>> {
	if (typeof value !== "object" || value === null || Array.isArray(value)) {
		throw invalid(what, value);
	}
	return value as Readonly<Record<string, unknown>>;
}

function list(value: unknown, what: string): readonly unknown[] {
	if (value === undefined || value === null) {
		return [];
	}
	if (!Array.isArray(value)) {
		throw invalid(what, value);
	}
	return value;
}

function strings(value: unknown, what: string): readonly string[] {
	return list(value, what).map((each) => text(each, what));
}

function text(value: unknown, what: string): string {
	if (value === undefined || value === null) {
		return "";
	}
	if (typeof value !== "string") {
		throw invalid(what, value);
	}
	return value;
}

function required(value: unknown, what: string): string {
	const found = text(value, what);
	if (found === "") {
		throw invalid(what, value);
	}
	return found;
}

function wholeNumber(value: unknown, what: string): number | undefined {
	if (value === undefined || value === null) {
		return undefined;
	}
	if (typeof value !== "number" || !Number.isInteger(value) || value < 0) {
		throw invalid(what, value);
	}
	return value;
}

function invalid(what: string, value: unknown): SlipwayError {
	return new SlipwayError("invalid-argument", `invalid ${what} ${JSON.stringify(value)}`);
}
