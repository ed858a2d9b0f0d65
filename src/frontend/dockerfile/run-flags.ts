import { SlipwayError, wrap } from "../../errors/errors.ts";
import { quoteGo } from "../../oci/go-quote.ts";
import { parseCsvFields } from "./csv-fields.ts";
import { parseGoBool, parseGoUint32, parseRamSize } from "./go-number.ts";
import { toLower } from "./go-text.ts";
import type { CacheSharing, Device, Mount, MountType } from "./instructions.ts";
import { withSuggestion } from "./suggest.ts";

const mountTypes: readonly MountType[] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const sharingModes: readonly CacheSharing[] = ["shared", "private", "locked"];

/** The keys that suggestions choose from. */
const mountKeys: readonly string[] = [
	"type",
	"from",
	"source",
	"target",
	"readonly",
	"id",
	"sharing",
	"required",
	"size",
	"mode",
	"uid",
	"gid",
	"src",
	"dst",
	"destination",
	"ro",
	"rw",
	"readwrite",
	"env",
];

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

function newMount(): Mutable<Mount> {
	return {
		type: "bind",
		from: "",
		source: "",
		target: "",
		readOnly: true,
		sizeLimit: 0,
		id: "",
		sharing: undefined,
		required: false,
		env: undefined,
		mode: undefined,
		uid: undefined,
		gid: undefined,
	};
}

/**
 * What can be known of a `--mount` before its variables are: that it is CSV, and `from`, which decides what the
 * instruction depends on and therefore takes no variables.
 */
export function parseMountSource(flag: string): Mount {
	const mount = newMount();
	for (const field of mountFields(flag)) {
		const { key, value } = splitField(field);
		if (value === undefined || key !== "from") {
			continue;
		}
		const dollar = value.indexOf("$");
		if (dollar >= 0 && dollar !== value.length - 1) {
			throw invalid(`'${key}' doesn't support variable expansion, define alias stage instead`);
		}
		mount.from = value;
	}
	return mount;
}

/**
 * Reads a `--mount`, expanding each value on its way. Fields are read from left to right and some depend on `type`,
 * so `size=1m,type=tmpfs` is wrong where `type=tmpfs,size=1m` is right.
 */
export function parseMount(flag: string, expand: (value: string) => string): Mount {
	const mount = newMount();
	let readOnly: boolean | undefined;
	for (const field of mountFields(flag)) {
		const { key, value: written } = splitField(field);
		if (written === undefined) {
			if (key === "readonly" || key === "ro") {
				readOnly = true;
			} else if (key === "readwrite" || key === "rw") {
				readOnly = false;
			} else if (key === "required") {
				mount.required = requireTypes(mount, key, ["secret", "ssh"]);
			} else {
				throw invalid(`invalid field '${field}' must be a key=value pair`);
			}
			continue;
		}
		const value = expand(written);
		switch (key) {
			case "type":
				mount.type = parseChoice(value, mountTypes, "unsupported mount type");
				break;
			case "from":
				mount.from = value;
				break;
			case "source":
			case "src":
				mount.source = value;
				break;
			case "target":
			case "dst":
			case "destination":
				mount.target = value;
				break;
			case "readonly":
			case "ro":
				readOnly = parseBoolValue(key, value);
				break;
			case "readwrite":
			case "rw":
				readOnly = !parseBoolValue(key, value);
				break;
			case "required":
				requireTypes(mount, key, ["secret", "ssh"]);
				mount.required = parseBoolValue(key, value);
				break;
			case "size": {
				requireTypes(mount, key, ["tmpfs"]);
				const size = parseRamSize(value);
				if (size === undefined) {
					throw invalid(`invalid value for ${key}: ${value}`);
				}
				mount.sizeLimit = size;
				break;
			}
			case "id":
				mount.id = value;
				break;
			case "sharing":
				mount.sharing = parseChoice(value, sharingModes, "unsupported sharing value");
				break;
			case "mode":
				mount.mode = parseNumber(key, value, 8);
				break;
			case "uid":
				mount.uid = parseNumber(key, value, 10);
				break;
			case "gid":
				mount.gid = parseNumber(key, value, 10);
				break;
			case "env":
				mount.env = value;
				break;
			default:
				throw invalid(withSuggestion(`unexpected key '${key}' in '${field}'`, key, mountKeys));
		}
	}
	checkMount(mount);
	mount.readOnly = readOnly ?? (mount.type !== "cache" && mount.type !== "tmpfs");
	return mount;
}

function checkMount(mount: Mount): void {
	if (mount.type === "bind" || mount.type === "tmpfs") {
		for (const key of ["mode", "uid", "gid"] as const) {
			if (mount[key] !== undefined) {
				throw invalid(`${key} not allowed for ${quoteGo(mount.type)} type mounts`);
			}
		}
	}
	if (mount.type === "secret") {
		if (mount.from !== "") {
			throw invalid("secret mount should not have a from");
		}
		if (mount.sharing !== undefined) {
			throw invalid("secret mount should not define sharing");
		}
		if (mount.source === "" && mount.target === "" && mount.id === "") {
			throw invalid("invalid secret mount. one of source, target required");
		}
		if (mount.source !== "" && mount.id !== "") {
			throw invalid("both source and id can't be set");
		}
	}
	if (mount.sharing !== undefined && mount.type !== "cache") {
		throw invalid(`invalid cache sharing set for ${mount.type} mount`);
	}
}

/** Reads a `--device`: `name`, `name=...`, `required[=bool]`; the first field that is neither is the name. */
export function parseDevice(flag: string): Device {
	let name = "";
	let required = false;
	for (const field of csvFields(flag, "failed to parse csv devices")) {
		const { key, value } = splitField(field);
		if (key === "required") {
			required = value === undefined || parseBoolValue(key, value);
		} else if (key === "name" && value !== undefined) {
			if (name !== "") {
				throw invalid(`device name already set to ${name}`);
			}
			name = value;
		} else if (name === "") {
			name = field;
		} else if (value === undefined) {
			throw invalid(`invalid field '${field}' must be a key=value pair`);
		} else {
			throw invalid(withSuggestion(`unexpected key '${key}' in '${field}'`, key, ["name", "required"]));
		}
	}
	return { name, required };
}

function mountFields(flag: string): readonly string[] {
	return csvFields(flag, "failed to parse csv mounts");
}

function csvFields(flag: string, context: string): readonly string[] {
	try {
		return parseCsvFields(flag);
	} catch (error) {
		throw wrap(error, context);
	}
}

function splitField(field: string): { readonly key: string; readonly value: string | undefined } {
	const equals = field.indexOf("=");
	return equals < 0
		? { key: toLower(field), value: undefined }
		: { key: toLower(field.slice(0, equals)), value: field.slice(equals + 1) };
}

function requireTypes(mount: Mount, key: string, types: readonly MountType[]): true {
	if (!types.includes(mount.type)) {
		throw invalid(`unexpected key '${key}' for mount type '${mount.type}'`);
	}
	return true;
}

function parseChoice<Choice extends string>(
	value: string,
	choices: readonly Choice[],
	message: string,
): Choice {
	const lower = toLower(value);
	const found = choices.find((choice) => choice === lower);
	if (found === undefined) {
		throw invalid(withSuggestion(`${message} ${quoteGo(value)}`, value, choices));
	}
	return found;
}

function parseBoolValue(key: string, value: string): boolean {
	const parsed = parseGoBool(value);
	if (parsed === undefined) {
		throw invalid(`invalid value for ${key}: ${value}`);
	}
	return parsed;
}

function parseNumber(key: string, value: string, base: 8 | 10): number {
	const parsed = parseGoUint32(value, base);
	if (parsed === undefined) {
		throw invalid(`invalid value ${value} for ${key}`);
	}
	return parsed;
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
