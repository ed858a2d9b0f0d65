import { readFileSync } from "node:fs";
import { toError } from "../errors/errors.ts";
import { cFunction, check, cPath, errno, errnoNumber, showPath, sysError } from "./ffi.ts";
import { mountManyLayers } from "./mount-layers.ts";
import type { MountEntry, MountSpec, SysPath, UnmountOptions } from "./sys.ts";

type CPath = string | Uint8Array;

const mountCall = cFunction<[string, CPath, string, number, string | null]>("mount", "int", [
	"const char *",
	"const char *",
	"const char *",
	"long",
	"const char *",
]);
const umount2 = cFunction<[CPath, number]>("umount2", "int", ["const char *", "int"]);

const MS_RDONLY = 1;
const MS_REMOUNT = 32;
const MS_BIND = 4096;
const MS_REC = 16_384;

/** Options that are flags, mount(8). */
const setFlags: Readonly<Record<string, number>> = {
	ro: MS_RDONLY,
	nosuid: 2,
	nodev: 4,
	noexec: 8,
	sync: 16,
	remount: MS_REMOUNT,
	mand: 64,
	dirsync: 128,
	nosymfollow: 256,
	noatime: 1024,
	nodiratime: 2048,
	bind: MS_BIND,
	rbind: MS_BIND | MS_REC,
	silent: 32_768,
	relatime: 1 << 21,
	strictatime: 1 << 24,
	lazytime: 1 << 25,
};

/** Options that take a flag back. */
const clearFlags: Readonly<Record<string, number>> = {
	rw: MS_RDONLY,
	suid: 2,
	dev: 4,
	exec: 8,
	async: 16,
	nomand: 64,
	symfollow: 256,
	atime: 1024,
	diratime: 2048,
	loud: 32_768,
	norelatime: 1 << 21,
	nostrictatime: 1 << 24,
	nolazytime: 1 << 25,
	defaults: 0,
};

const propagationFlags: Readonly<Record<string, number>> = {
	unbindable: 1 << 17,
	private: 1 << 18,
	slave: 1 << 19,
	shared: 1 << 20,
	runbindable: (1 << 17) | MS_REC,
	rprivate: (1 << 18) | MS_REC,
	rslave: (1 << 19) | MS_REC,
	rshared: (1 << 20) | MS_REC,
};

/** Flags of a mount point, as opposed to those of its file system: what a bind mount can change about its source. */
const perMount = MS_RDONLY | 2 | 4 | 8 | 256 | 1024 | 2048 | (1 << 21) | (1 << 24);

/** mount(2) takes one page of options with its closing NUL; longer ones are cut off in silence. */
const maxDataBytes = 4095;

/**
 * Mounts at `target`, which exists. `bind` with `ro` and the like is done as the kernel wants it, by a second call; so
 * is propagation. An overlay may have more layers than mount(2) can be told in its one page of options.
 */
export function mount(spec: MountSpec, target: SysPath): void {
	const { flags, propagation, data } = parseOptions(spec);
	const type = (flags & MS_BIND) === 0 ? spec.type : "";
	const what = (): string => `mount ${spec.type} on ${showPath(target)}`;
	const text = data.join(",");
	const at = cPath(target);
	if (type === "overlay" && Buffer.byteLength(text) > maxDataBytes) {
		mountManyLayers({ source: spec.source, flags: flags & ~MS_REMOUNT, data }, at, what());
	} else if (Buffer.byteLength(text) > maxDataBytes) {
		throw sysError(`${what()}: options of ${Buffer.byteLength(text)} bytes`, errnoNumber.EINVAL);
	} else {
		const first = (flags & MS_BIND) === 0 ? flags : flags & (MS_BIND | MS_REC | MS_REMOUNT);
		check(mountCall(spec.source, at, type, first, text === "" ? null : text), what);
	}
	try {
		if ((flags & MS_BIND) !== 0 && (flags & MS_REMOUNT) === 0 && (flags & perMount) !== 0) {
			changeFlags(at, flags, what);
		}
		for (const flag of propagation) {
			check(mountCall("none", at, "", flag, null), () => `change propagation of ${showPath(target)}`);
		}
	} catch (thrown) {
		unmount(target, { detach: true });
		throw thrown;
	}
}

/** `source`, a file or directory, also at `target`. */
export function bindMount(source: string, target: SysPath, options: readonly string[] = []): void {
	mount({ type: "bind", source, options: ["bind", ...options] }, target);
}

/** Changes how mounts and unmounts spread from a mount point that exists, as in `rprivate`. */
export function setPropagation(target: SysPath, mode: keyof typeof propagationFlags & string): void {
	check(
		mountCall("none", cPath(target), "", propagationFlags[mode] ?? 0, null),
		() => `change propagation of ${showPath(target)}`,
	);
}

/** Takes the uppermost mount away from `target`; a symbolic link is not followed. False if nothing is mounted there. */
export function unmount(target: SysPath, options: UnmountOptions = {}): boolean {
	const detach = 2;
	const noFollow = 8;
	if (umount2(cPath(target), noFollow | (options.detach === true ? detach : 0)) >= 0) {
		return true;
	}
	const number = errno();
	if (number === errnoNumber.EINVAL || number === errnoNumber.ENOENT) {
		return false;
	}
	throw sysError(`umount ${showPath(target)}`, number);
}

/** All mounts that this process sees, in the order of their making; those on `under` and below if given. */
export function listMounts(under?: string): MountEntry[] {
	let table: string;
	try {
		table = readFileSync("/proc/self/mountinfo", "utf8");
	} catch (thrown) {
		throw toError(thrown);
	}
	const prefix = under?.endsWith("/") === true ? under : `${under}/`;
	return table
		.split("\n")
		.filter((line) => line !== "")
		.map(parseMountLine)
		.filter(({ target }) => under === undefined || target === under || target.startsWith(prefix));
}

function parseMountLine(line: string): MountEntry {
	const fields = line.split(" ").map(unescapeOctal);
	const separator = fields.indexOf("-", 6);
	return {
		id: Number(fields[0]),
		parent: Number(fields[1]),
		device: fields[2] ?? "",
		root: fields[3] ?? "",
		target: fields[4] ?? "",
		options: (fields[5] ?? "").split(","),
		propagation: fields.slice(6, separator),
		type: fields[separator + 1] ?? "",
		source: fields[separator + 2] ?? "",
		superOptions: (fields[separator + 3] ?? "").split(","),
	};
}

/** The kernel writes space, tab, newline and backslash as `\040` and the like. */
function unescapeOctal(field: string): string {
	return field.replace(/\\([0-7]{3})/g, (_, digits: string) =>
		String.fromCharCode(Number.parseInt(digits, 8)),
	);
}

function parseOptions(spec: MountSpec): {
	readonly flags: number;
	readonly propagation: readonly number[];
	readonly data: readonly string[];
} {
	let flags = spec.type === "bind" ? MS_BIND : spec.type === "rbind" ? MS_BIND | MS_REC : 0;
	const propagation: number[] = [];
	const data: string[] = [];
	for (const option of spec.options) {
		const set = setFlags[option];
		const clear = clearFlags[option];
		const spread = propagationFlags[option];
		if (set !== undefined) {
			flags |= set;
		} else if (clear !== undefined) {
			flags &= ~clear;
		} else if (spread !== undefined) {
			propagation.push(spread);
		} else if (option !== "") {
			data.push(option);
		}
	}
	return { flags, propagation, data };
}

/**
 * Puts flags on a fresh bind mount. In a user namespace the kernel refuses (EPERM) to take away the flags that the source
 * came with, so the second attempt keeps them.
 */
function changeFlags(at: CPath, flags: number, what: () => string): void {
	const wanted = MS_REMOUNT | MS_BIND | (flags & perMount);
	if (mountCall("none", at, "", wanted, null) >= 0) {
		return;
	}
	const number = errno();
	if (number !== errnoNumber.EPERM) {
		throw sysError(what(), number);
	}
	const target = showPath(at instanceof Uint8Array ? at.subarray(0, -1) : at);
	const locked = (listMounts().findLast((entry) => entry.target === target)?.options ?? []).reduce(
		(all, option) => all | ((setFlags[option] ?? 0) & perMount),
		0,
	);
	check(mountCall("none", at, "", wanted | locked, null), what);
}
