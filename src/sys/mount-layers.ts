import { mkdtempSync, readSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { toError, wrap } from "../errors/errors.ts";
import { cFunction, check, closeDescriptor, errno, errnoNumber, sysError } from "./ffi.ts";

/**
 * An overlay with more layers than the one page of options of mount(2) holds. The new mount calls (fsopen(2) and others,
 * numbers equal on all architectures) take each layer on its own, from Linux 6.8 on. Before, short symbolic links stand in for the
 * layers while the mount is made.
 */
export interface LayeredMount {
	readonly source: string;
	readonly flags: number;
	readonly data: readonly string[];
}

type CPath = string | Uint8Array;

const fsopen = cFunction<[number, string, number]>("syscall", "long", ["long", "const char *", "long"]);
const fsconfig = cFunction<[number, number, number, string | null, string | null, number]>(
	"syscall",
	"long",
	["long", "long", "long", "const char *", "const char *", "long"],
);
const fsmount = cFunction<[number, number, number, number]>("syscall", "long", [
	"long",
	"long",
	"long",
	"long",
]);
const moveMount = cFunction<[number, number, string, number, CPath, number]>("syscall", "long", [
	"long",
	"long",
	"const char *",
	"long",
	"const char *",
	"long",
]);
const classicMount = cFunction<[string, CPath, string, number, string]>("mount", "int", [
	"const char *",
	"const char *",
	"const char *",
	"long",
	"const char *",
]);

const MOVE_MOUNT = 429;
const FSOPEN = 430;
const FSCONFIG = 431;
const FSMOUNT = 432;
const cloexec = 1;
const setFlag = 0;
const setString = 1;
const create = 6;
const atCwd = -100;
const emptyFromPath = 4;

/** Flags of mount(2) and the attributes of fsmount(2) that they are. */
const attributes: readonly (readonly [flag: number, attribute: number])[] = [
	[1, 0x1],
	[2, 0x2],
	[4, 0x4],
	[8, 0x8],
	[256, 0x20_0000],
	[1024, 0x10],
	[2048, 0x80],
	[1 << 24, 0x20],
];

export function mountManyLayers(layered: LayeredMount, at: CPath, what: string): void {
	if (!mountLayerByLayer(layered, at, what)) {
		mountThroughLinks(layered, at, what);
	}
}

/** False if this kernel cannot. */
export function mountLayerByLayer(layered: LayeredMount, at: CPath, what: string): boolean {
	const context = fsopen(FSOPEN, "overlay", cloexec);
	if (context < 0) {
		const number = errno();
		if (number === errnoNumber.ENOSYS) {
			return false;
		}
		throw sysError(what, number);
	}
	/** The kernel's own words about the last failure, if it has some. */
	const explain = (key: string): string => {
		const number = errno();
		const into = new Uint8Array(4096);
		let text = "";
		try {
			text = `: ${new TextDecoder().decode(into.subarray(0, readSync(context, into)))}`.trimEnd();
		} catch {
			// ENODATA: no words.
		}
		ffiErrno = number;
		return `${what}: fsconfig ${key}${text}`;
	};
	let ffiErrno = 0;
	const configure = (command: number, key: string | null, value: string | null): void => {
		if (fsconfig(FSCONFIG, context, command, key, value, 0) < 0) {
			const message = explain(key ?? "create");
			throw sysError(message, ffiErrno);
		}
	};
	try {
		configure(setString, "source", layered.source);
		for (const option of layered.data) {
			const equals = option.indexOf("=");
			const key = equals < 0 ? option : option.slice(0, equals);
			if (key !== "lowerdir") {
				configure(equals < 0 ? setFlag : setString, key, equals < 0 ? null : option.slice(equals + 1));
				continue;
			}
			for (const [index, layer] of splitLayers(option.slice(equals + 1)).entries()) {
				if (fsconfig(FSCONFIG, context, setString, "lowerdir+", layer, 0) >= 0) {
					continue;
				}
				const message = explain("lowerdir+");
				if (index === 0 && ffiErrno === errnoNumber.EINVAL) {
					return false;
				}
				throw sysError(message, ffiErrno);
			}
		}
		if ((layered.flags & 1) !== 0) {
			configure(setFlag, "ro", null);
		}
		configure(create, null, null);
		const wanted = attributes.reduce(
			(all, [flag, bit]) => ((layered.flags & flag) === 0 ? all : all | bit),
			0,
		);
		const mounted = check(fsmount(FSMOUNT, context, cloexec, wanted), () => what);
		try {
			check(moveMount(MOVE_MOUNT, mounted, "", atCwd, at, emptyFromPath), () => what);
		} finally {
			closeDescriptor(mounted);
		}
		return true;
	} finally {
		closeDescriptor(context);
	}
}

/** The overlay keeps the directories that the links lead to, so the links may go once it is mounted. */
export function mountThroughLinks(layered: LayeredMount, at: CPath, what: string): void {
	let folder: string;
	try {
		folder = mkdtempSync(`${tmpdir()}/l`);
	} catch (thrown) {
		throw wrap(toError(thrown), what);
	}
	try {
		const data = layered.data.map((option) => {
			if (!option.startsWith("lowerdir=")) {
				return option;
			}
			const links = splitLayers(option.slice("lowerdir=".length)).map((layer, index) => {
				const link = `${folder}/${index.toString(36)}`;
				symlinkSync(layer, link);
				return link;
			});
			return `lowerdir=${links.join(":")}`;
		});
		const text = data.join(",");
		if (Buffer.byteLength(text) > 4095) {
			throw sysError(`${what}: options of ${Buffer.byteLength(text)} bytes`, errnoNumber.EINVAL);
		}
		check(classicMount(layered.source, at, "overlay", layered.flags, text), () => what);
	} finally {
		rmSync(folder, { recursive: true, force: true });
	}
}

/** Layers are parted by colons; a backslash makes the next character part of the name. */
function splitLayers(lowerdir: string): string[] {
	return [...lowerdir.matchAll(/((?:[^:\\]|\\.)+)/g)].map(([layer]) => layer.replace(/\\(.)/g, "$1"));
}
