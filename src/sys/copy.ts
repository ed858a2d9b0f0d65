import {
	closeSync,
	constants,
	fstatSync,
	ftruncateSync,
	openSync,
	readSync,
	type Stats,
	unlinkSync,
	writeSync,
} from "node:fs";
import { SlipwayError, toError } from "../errors/errors.ts";
import { cFunction, check, errno, errnoNumber, showPath, sysError } from "./ffi.ts";
import type { CopyKind, SysPath } from "./sys.ts";

const ioctl = cFunction<[number, number, number]>("ioctl", "int", ["int", "long", "long"]);
const copyFileRange = cFunction<[number, BigInt64Array, number, BigInt64Array, number, number]>(
	"copy_file_range",
	"long",
	["int", "void *", "int", "void *", "size_t", "uint"],
);
const lseek = cFunction<[number, number, number]>("lseek", "long", ["int", "long", "int"]);

/** `_IOW(0x94, 9, int)`, the same on all that we run on. */
const ficlone = 0x40049409;
const seekData = 3;
const seekHole = 4;

/** Below this, opening both files costs more than the bytes; a read and a write are cheapest. */
const smallBytes = 64 << 10;

/** What copy_file_range answers where it cannot work but a plain copy can. */
const notHere: ReadonlySet<number> = new Set([
	errnoNumber.EXDEV,
	errnoNumber.EINVAL,
	errnoNumber.ENOSYS,
	errnoNumber.EOPNOTSUPP,
	errnoNumber.EPERM,
	errnoNumber.ENOTTY,
]);

/** File systems (device of target) where reflinks failed once: asked again for each file they would cost a call. */
const noReflinks = new Set<number>();
/** The same for copy_file_range, by devices of source and target. */
const noKernelCopies = new Set<string>();

let scratch: Uint8Array | undefined;

/** Makes `to` share the blocks of `from`; both are descriptors of regular files, `to` is empty. False where that is impossible. */
export function cloneFile(from: number, to: number): boolean {
	if (ioctl(to, ficlone, from) >= 0) {
		return true;
	}
	const number = errno();
	if (notHere.has(number)) {
		return false;
	}
	throw sysError(`ioctl FICLONE of descriptor ${from}`, number);
}

/**
 * Copies the content of one open regular file into another that is empty, by reflink, in the kernel, or through memory.
 * Holes stay holes. A file that shrinks meanwhile is `aborted`; what grows behind the size seen first is not copied.
 */
export function copyContent(from: number, to: number): CopyKind {
	const source = fstatSync(from);
	if (source.size <= smallBytes) {
		copyBytes(from, to, 0, source.size);
		return "bytes";
	}
	const target = fstatSync(to);
	if (source.dev === target.dev && !noReflinks.has(target.dev)) {
		if (cloneFile(from, to)) {
			return "reflink";
		}
		noReflinks.add(target.dev);
	}
	const pair = `${source.dev} ${target.dev}`;
	let inKernel = !noKernelCopies.has(pair);
	for (const [start, end] of dataRanges(from, source)) {
		const copied = inKernel ? copyInKernel(from, to, start, end) : start;
		if (copied < end) {
			if (copied === start && inKernel) {
				inKernel = false;
				noKernelCopies.add(pair);
			}
			copyBytes(from, to, copied, end);
		}
	}
	ftruncateSync(to, source.size);
	return inKernel ? "kernel" : "bytes";
}

/**
 * Copies a regular file to a path that must not exist, with permission bits `mode` less the umask; on failure no target
 * is left. Owner, times and attributes are the caller's affair. A symbolic link at `from` is refused (ELOOP).
 */
export function copyFile(from: SysPath, to: SysPath, mode: number): CopyKind {
	let source = -1;
	let target = -1;
	try {
		source = openSync(asPathLike(from), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
		target = openSync(
			asPathLike(to),
			constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
			mode,
		);
		return copyContent(source, target);
	} catch (thrown) {
		if (target >= 0) {
			unlinkSync(asPathLike(to));
		}
		const error = toError(thrown);
		throw new SlipwayError(error.code, `copy ${showPath(from)} to ${showPath(to)}: ${error.message}`, {
			cause: thrown,
			details: error.details,
		});
	} finally {
		if (source >= 0) {
			closeSync(source);
		}
		if (target >= 0) {
			closeSync(target);
		}
	}
}

/** Ranges that hold data. A file whose blocks cover its size is one range, without a call. */
function* dataRanges(fd: number, stats: Stats): Generator<readonly [start: number, end: number]> {
	if (stats.blocks * 512 >= stats.size) {
		yield [0, stats.size];
		return;
	}
	for (let at = 0; at < stats.size; ) {
		const start = lseek(fd, at, seekData);
		if (start < 0) {
			const number = errno();
			// ENXIO: nothing but a hole from here on.
			if (number === 6) {
				return;
			}
			if (number === errnoNumber.EINVAL || number === errnoNumber.EOPNOTSUPP) {
				yield [at, stats.size];
				return;
			}
			throw sysError(`lseek of descriptor ${fd}`, number);
		}
		const end = Math.min(
			check(lseek(fd, start, seekHole), () => `lseek of descriptor ${fd}`),
			stats.size,
		);
		yield [start, end];
		at = end;
	}
}

/** Where it got to; less than `end` if this pair of files wants a plain copy. */
function copyInKernel(from: number, to: number, start: number, end: number): number {
	const readAt = new BigInt64Array([BigInt(start)]);
	const writeAt = new BigInt64Array([BigInt(start)]);
	let at = start;
	while (at < end) {
		// 1 GiB a call: the kernel caps a call below 2 GiB.
		const copied = copyFileRange(from, readAt, to, writeAt, Math.min(end - at, 1 << 30), 0);
		if (copied < 0) {
			const number = errno();
			if (number === errnoNumber.EINTR) {
				continue;
			}
			if (notHere.has(number)) {
				return at;
			}
			throw sysError("copy_file_range", number);
		}
		// 0 before the end: some file systems of older kernels cannot, and say so in this way.
		if (copied === 0) {
			return at;
		}
		at += copied;
	}
	return at;
}

function copyBytes(from: number, to: number, start: number, end: number): void {
	scratch ??= new Uint8Array(1 << 20);
	for (let at = start; at < end; ) {
		const got = readSync(from, scratch, 0, Math.min(scratch.length, end - at), at);
		if (got === 0) {
			throw new SlipwayError("aborted", `file shrank to ${at} of ${end} bytes while it was copied`);
		}
		for (let done = 0; done < got; ) {
			done += writeSync(to, scratch, done, got - done, at + done);
		}
		at += got;
	}
}

function asPathLike(path: SysPath): string | Buffer {
	return typeof path === "string" ? path : Buffer.from(path.buffer, path.byteOffset, path.byteLength);
}
