import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { ContainerMount } from "../executor/executor.ts";
import { formatPlatform, type Platform } from "../oci/platform.ts";
import { platformMatcher } from "../oci/platform-match.ts";
import { type Interpreter, openInterpreterNamespace } from "../sys/interpreter-namespace.ts";

/** An architecture with the header that its ELF files have. */
interface Machine {
	readonly architecture: string;
	/** In the name of the emulator: `buildkit-qemu-<name>`. */
	readonly qemu: string;
	readonly bits: 32 | 64;
	readonly bigEndian: boolean;
	/** `e_machine`. */
	readonly number: number;
	readonly variants?: readonly string[];
}

/** In the order in which BuildKit lists platforms. */
const machines: readonly Machine[] = [
	{ architecture: "amd64", qemu: "x86_64", bits: 64, bigEndian: false, number: 62 },
	{ architecture: "arm64", qemu: "aarch64", bits: 64, bigEndian: false, number: 183 },
	{ architecture: "riscv64", qemu: "riscv64", bits: 64, bigEndian: false, number: 243 },
	{ architecture: "ppc64", qemu: "ppc64", bits: 64, bigEndian: true, number: 21 },
	{ architecture: "ppc64le", qemu: "ppc64le", bits: 64, bigEndian: false, number: 21 },
	{ architecture: "s390x", qemu: "s390x", bits: 64, bigEndian: true, number: 22 },
	{ architecture: "386", qemu: "i386", bits: 32, bigEndian: false, number: 3 },
	{ architecture: "mips64le", qemu: "mips64le", bits: 64, bigEndian: false, number: 8 },
	{ architecture: "mips64", qemu: "mips64", bits: 64, bigEndian: true, number: 8 },
	{ architecture: "loong64", qemu: "loong64", bits: 64, bigEndian: false, number: 258 },
	{ architecture: "arm", qemu: "arm", bits: 32, bigEndian: false, number: 40, variants: ["v6"] },
];

export interface EmulationPaths {
	/** Where the kernel lists its interpreters. */
	readonly binfmt: string;
	/** Exists where the kernel runs 32-bit programs on amd64. */
	readonly compat: string;
}

const kernelPaths: EmulationPaths = {
	binfmt: "/proc/sys/fs/binfmt_misc",
	compat: "/proc/sys/abi/vsyscall32",
};

/**
 * All that the machine runs: what its CPU does, then 386 on an amd64 kernel that allows it, then what an interpreter is
 * registered for that also works in a container, which means with the flag F (fix binary).
 */
export function runnablePlatforms(
	native: readonly Platform[],
	{ binfmt, compat }: EmulationPaths = kernelPaths,
): readonly Platform[] {
	const isOurs = (architecture: string): boolean => native.some((each) => each.architecture === architecture);
	if (native[0]?.os !== "linux") {
		return native;
	}
	const interpreters = readInterpreters(binfmt);
	const others = machines.filter(
		(machine) =>
			!isOurs(machine.architecture) &&
			((machine.architecture === "386" && isOurs("amd64") && existsSync(compat)) ||
				interpreters.some((interpreter) => takes(interpreter, elfHeader(machine)))),
	);
	return [
		...native,
		...others.flatMap(({ architecture, variants = [] }) => [
			{ architecture, os: "linux" },
			...variants.map((variant) => ({ architecture, os: "linux", variant })),
		]),
	];
}

interface Registered {
	readonly magic: Uint8Array;
	/** Empty: all bits count. */
	readonly mask: Uint8Array;
}

/** Format: Documentation/admin-guide/binfmt-misc.rst of the kernel. */
function readInterpreters(directory: string): readonly Registered[] {
	let names: readonly string[];
	try {
		names = readdirSync(directory);
	} catch {
		return [];
	}
	return names.flatMap((name) => {
		let text: string;
		try {
			text = readFileSync(join(directory, name), "utf8");
		} catch {
			return [];
		}
		const field = (pattern: RegExp): string | undefined => pattern.exec(text)?.[1];
		const magic = field(/^magic ([0-9a-f]+)$/m);
		const works = /^enabled$/m.test(text) && field(/^offset (\d+)$/m) === "0";
		if (!works || magic === undefined || !field(/^flags: (\w*)$/m)?.includes("F")) {
			return [];
		}
		const mask = field(/^mask ([0-9a-f]+)$/m) ?? "";
		return [{ magic: Buffer.from(magic, "hex"), mask: Buffer.from(mask, "hex") }];
	});
}

function takes({ magic, mask }: Registered, header: Uint8Array): boolean {
	return magic.every((byte, at) => ((byte ^ (header[at] ?? 0)) & (mask[at] ?? 0xff)) === 0);
}

/** The beginning of a program, as far as interpreters look at it. */
function elfHeader({ bits, bigEndian, number }: Machine): Uint8Array {
	const header = Buffer.alloc(64);
	header.set([0x7f, 0x45, 0x4c, 0x46, bits === 64 ? 2 : 1, bigEndian ? 2 : 1, 1]);
	const executable = 2;
	if (bigEndian) {
		header.writeUInt16BE(executable, 16);
		header.writeUInt16BE(number, 18);
	} else {
		header.writeUInt16LE(executable, 16);
		header.writeUInt16LE(number, 18);
	}
	return header;
}

/** Where the emulator is seen in the container; BuildKit's name. */
const mountPoint = "/dev/.buildkit_qemu_emulator";

/** How a program of a platform that the machine does not run is run all the same. */
export type Emulator =
	/** BuildKit's own build of QEMU, which starts itself anew for each program that is started by another. */
	| {
			readonly kind: "mounted";
			readonly mount: ContainerMount;
			/** Goes in front of the arguments. */
			readonly command: string;
	  }
	/** Anybody's static build of QEMU: the kernel has to start it. */
	| { readonly kind: "interpreter"; readonly interpreter: Interpreter };

/**
 * `buildkit-qemu-<name>`, else `qemu-<name>-static`, of the search path. Undefined where none is needed or there is
 * none: the program is then started as it is, since the files of a stage need not be of the platform that it names.
 */
export function findEmulator(
	platform: Platform,
	{ runnable, searchPath }: { readonly runnable: readonly Platform[]; readonly searchPath: string },
): Emulator | undefined {
	if (isRunnable(platform, runnable)) {
		return undefined;
	}
	const { architecture } = platform;
	const machine = machines.find((each) => each.architecture === architecture);
	const name = machine?.qemu ?? architecture;
	const find = (program: string): string | undefined =>
		searchPath
			.split(":")
			.filter((directory) => directory.startsWith("/"))
			.map((directory) => join(directory, program))
			.find((each) => existsSync(each));
	const patched = find(`buildkit-qemu-${name}`);
	if (patched !== undefined) {
		return {
			kind: "mounted",
			mount: {
				target: mountPoint,
				readonly: true,
				source: { kind: "host", path: patched, options: [] },
			},
			command: mountPoint,
		};
	}
	const path = machine === undefined ? undefined : find(`qemu-${name}-static`);
	return machine === undefined || path === undefined
		? undefined
		: { kind: "interpreter", interpreter: { path, ...headerPattern(machine) } };
}

/** What of a program's header says that it is for the machine: as QEMU's scripts/qemu-binfmt-conf.sh has it. */
function headerPattern(machine: Machine): Omit<Interpreter, "path"> {
	const mask = Buffer.alloc(20, 0xff);
	// Any system's convention, and EXEC as well as DYN.
	mask[7] = 0;
	mask[machine.bigEndian ? 17 : 16] = 0xfe;
	return { magic: elfHeader(machine).subarray(0, mask.length), mask };
}

/** What a container needs for it. */
export interface Emulation {
	readonly mounts: readonly ContainerMount[];
	readonly args: readonly string[];
	readonly userNamespace?: string;
}

/** An emulator that this kernel does not take is none: what the program's start then says is explained. */
export async function startEmulator(emulator: Emulator | undefined): Promise<Emulation> {
	switch (emulator?.kind) {
		case undefined:
			return { mounts: [], args: [] };
		case "mounted":
			return { mounts: [emulator.mount], args: [emulator.command] };
		case "interpreter": {
			const userNamespace = await openInterpreterNamespace(emulator.interpreter).catch(() => undefined);
			return { mounts: [], args: [], ...(userNamespace === undefined ? {} : { userNamespace }) };
		}
	}
}

function isRunnable(platform: Platform, runnable: readonly Platform[]): boolean {
	return runnable.some((each) => platformMatcher(each).matches(platform));
}

/**
 * Looks at what a step prints for the kernel's word that it does not know a program. Gives undefined where the platform
 * needs no emulation.
 */
export function watchForeignProgram(
	platform: Platform,
	runnable: readonly Platform[],
): ForeignWatch | undefined {
	if (isRunnable(platform, runnable)) {
		return undefined;
	}
	let tail = "";
	return {
		see(chunk) {
			tail = (tail + Buffer.from(chunk.subarray(-tailLength)).toString("latin1")).slice(-tailLength);
		},
		explain(message) {
			const list = runnable.map(formatPlatform).join(", ");
			return /exec(?:utable file)? format error/i.test(`${tail}\n${message}`)
				? `no support for running processes with ${formatPlatform(platform)} platform, supported: ${list}; to emulate it, install QEMU (package qemu-user-static) and, before Linux 6.7, register it with the kernel (package binfmt-support, or the image tonistiigi/binfmt), or build that stage with FROM --platform=$BUILDPLATFORM`
				: undefined;
		},
	};
}

export interface ForeignWatch {
	/** A piece of what the runtime or the process printed. */
	readonly see: (chunk: Uint8Array) => void;
	/** What is missing, if that was the reason; `message` is the error's. */
	readonly explain: (message: string) => string | undefined;
}

const tailLength = 1024;
