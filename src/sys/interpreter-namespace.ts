import { openSync, readFileSync, writeFileSync } from "node:fs";
import { SlipwayError, toError } from "../errors/errors.ts";
import { spawn } from "./spawn.ts";

/** A program that runs programs of another machine, and how those are known by their first bytes. */
export interface Interpreter {
	/** Linked statically: it is loaded in trees that have no libraries for it. */
	readonly path: string;
	readonly magic: Uint8Array;
	/** As long as the magic; bits that are 0 do not count. */
	readonly mask: Uint8Array;
}

/** Descriptors are of this process and stay open until it ends, so that what they name does too. */
const opened = new Map<string, Promise<string>>();

/**
 * A user namespace in which the kernel runs foreign programs by the interpreter, children of children too; the path is
 * what another process (an OCI runtime) enters it by. The machine itself learns nothing of the interpreter.
 *
 * User and group ids are those of this process. What the kernel allows only in its first user namespace (making device
 * nodes, mounting disks) does not work in it. Needs Linux 6.7, where binfmt_misc became one per user namespace, and the
 * right to map ids, which root has, also root of a user namespace. Rejects with the reason where that is missing.
 *
 * Format of the registration: Documentation/admin-guide/binfmt-misc.rst of the kernel.
 */
export function openInterpreterNamespace(interpreter: Interpreter): Promise<string> {
	let path = opened.get(interpreter.path);
	if (path === undefined) {
		path = open(interpreter);
		opened.set(interpreter.path, path);
	}
	return path;
}

export interface IdRange {
	readonly first: number;
	readonly count: number;
}

/** The ids that there are for this process: all of the machine, or those of its user namespace. */
export function ownIds(kind: "uid" | "gid"): readonly IdRange[] {
	return readFileSync(`/proc/self/${kind}_map`, "utf8")
		.trim()
		.split("\n")
		.map((line) => {
			const [first = 0, , count = 0] = line.trim().split(/\s+/).map(Number);
			return { first, count };
		});
}

/**
 * A process of several threads, which this one is, cannot enter a user namespace, so a child does. Rights inside come
 * with the first program that is started after the ids were mapped, hence the chain of programs.
 */
const register =
	'mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc && printf %s "$1" >/proc/sys/fs/binfmt_misc/register && echo && read -r _';
const script = `echo && read -r _ && exec unshare --mount sh -c '${register}' sh "$1"`;

async function open({ path, magic, mask }: Interpreter): Promise<string> {
	const escaped = (bytes: Uint8Array): string =>
		[...bytes].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
	// P: the program's own name is its first argument. C: as the program's owner where that is asked for (sudo).
	// F: opened now, not in the container.
	const registration = `:foreign:M:0:${escaped(magic)}:${escaped(mask)}:${path}:POCF`;
	const child = spawn({
		argv: ["unshare", "--user", "sh", "-c", script, "sh", registration],
		env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
		stdin: "pipe",
	});
	const { stdin, stdout, stderr } = child;
	if (stdin === undefined || stdout === undefined || stderr === undefined) {
		throw new SlipwayError("internal", "a child without pipes");
	}
	stdin.on("error", () => {});
	let trouble = "";
	stderr.on("data", (chunk: Uint8Array) => {
		trouble += Buffer.from(chunk).toString();
	});
	const lines = stdout[Symbol.asyncIterator]();
	const next = async (): Promise<void> => {
		if ((await lines.next()).done === true) {
			await child.exited;
			throw new SlipwayError("unimplemented", trouble.trim().replaceAll("\n", "; "));
		}
	};
	try {
		await next();
		for (const kind of ["uid", "gid"] as const) {
			const ranges = ownIds(kind).map(({ first, count }) => `${first} ${first} ${count}\n`);
			writeFileSync(`/proc/${child.pid}/${kind}_map`, ranges.join(""));
		}
		stdin.write("\n");
		await next();
		// The registration lives as long as the mount, the mount as long as its namespace.
		openSync(`/proc/${child.pid}/ns/mnt`, "r");
		return `/proc/${process.pid}/fd/${openSync(`/proc/${child.pid}/ns/user`, "r")}`;
	} catch (error) {
		throw toError(error);
	} finally {
		stdin.destroy();
		await child.exited;
		stdout.destroy();
		stderr.destroy();
	}
}
