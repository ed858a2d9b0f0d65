import { randomBytes } from "node:crypto";
import {
	closeSync,
	constants,
	fchmodSync,
	fstatSync,
	openSync,
	realpathSync,
	renameSync,
	rmSync,
	statSync,
	write,
	writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { hasCode, SlipwayError, toError, wrap } from "../errors/errors.ts";
import { nameFile, openUnnamedFile } from "../sys/unnamed-file.ts";
import type { OutputStream, SessionOutput } from "./session.ts";

type Stream = Extract<SessionOutput, { kind: "stream" }>;

/**
 * A file of the client. It is written beside its name and takes it at the end: who reads the name sees the old file or the new one.
 * A link keeps being one, what it points to is replaced. A pipe or device is written to as it is.
 */
export function fileOutput(path: string): Stream {
	return {
		kind: "stream",
		async open() {
			try {
				const existing = statSync(path, { throwIfNoEntry: false });
				if (existing?.isDirectory() === true) {
					throw new SlipwayError("invalid-argument", `destination file ${path} is a directory`);
				}
				return existing === undefined || existing.isFile()
					? replaceFile(existing === undefined ? resolveNew(path) : realpathSync(path), existing?.mode)
					: openSpecial(path);
			} catch (thrown) {
				throw wrap(thrown, `failed to open ${path}`);
			}
		},
	};
}

/** An open descriptor, such as 1: it stays open, and what was written to it cannot be taken back. */
export function descriptorOutput(fd: number): Stream {
	return {
		kind: "stream",
		async open() {
			return openStream(fd, { close() {}, abort() {} });
		},
	};
}

/** A directory of the client; whoever writes makes it if needed. `delete` also removes what the result does not have. */
export function directoryOutput(path: string, mode: "copy" | "delete" = "copy"): SessionOutput {
	if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === false) {
		throw new SlipwayError("invalid-argument", `destination directory ${path} is a file`);
	}
	return { kind: "directory", path, mode };
}

/** Where a new file goes: a link that points to nothing yet is no place to rename to. */
function resolveNew(path: string): string {
	const directory = dirname(path);
	try {
		return join(realpathSync(directory), basename(path));
	} catch (thrown) {
		if (hasCode(toError(thrown), "not-found")) {
			throw new SlipwayError("not-found", `directory ${directory} does not exist`, { cause: thrown });
		}
		throw thrown;
	}
}

/**
 * Without a name until it is whole where the file system can do that, so that even a killed process leaves nothing. All is
 * done through one descriptor of the directory: this process may move to another mount namespace meanwhile, from where the
 * same path would be another mount.
 */
function replaceFile(target: string, mode: number | undefined): OutputStream {
	const directory = openSync(dirname(target), constants.O_RDONLY | constants.O_DIRECTORY);
	const within = (name: string): string => `/proc/self/fd/${directory}/${name}`;
	const temporary = within(`.${basename(target)}.${randomBytes(6).toString("hex")}`);
	let unnamed: number | undefined;
	let fd: number;
	try {
		unnamed = openUnnamedFile(within("."), 0o666);
		fd =
			unnamed ??
			openSync(
				temporary,
				constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
				0o666,
			);
	} catch (thrown) {
		closeSync(directory);
		throw thrown;
	}
	return openStream(fd, {
		close() {
			try {
				if (mode !== undefined) {
					fchmodSync(fd, mode & 0o777);
				}
				if (unnamed !== undefined) {
					nameFile(fd, temporary);
				}
				renameSync(temporary, within(basename(target)));
			} finally {
				closeSync(fd);
				closeSync(directory);
			}
		},
		abort() {
			closeSync(fd);
			rmSync(temporary, { force: true });
			closeSync(directory);
		},
	});
}

function openSpecial(path: string): OutputStream {
	const fd = openSync(path, constants.O_WRONLY);
	return openStream(fd, { close: () => closeSync(fd), abort: () => closeSync(fd) });
}

interface Ending {
	close(): void;
	abort(): void;
}

const writeAsync = promisify(write);

function openStream(fd: number, ending: Ending): OutputStream {
	// What blocks must not block this thread, and what does not block says EAGAIN: both are for this thread to wait for.
	const isFile = fstatSync(fd).isFile();
	let open = true;
	const end = (how: "close" | "abort"): void => {
		if (open) {
			open = false;
			ending[how]();
		}
	};
	return {
		fd: isFile ? fd : undefined,
		async write(chunk) {
			try {
				for (let at = 0; at < chunk.length; ) {
					at += isFile ? writeSync(fd, chunk, at) : await writeSome(fd, chunk.subarray(at));
				}
			} catch (thrown) {
				throw wrap(thrown, "could not write the result");
			}
		},
		async close() {
			try {
				end("close");
			} catch (thrown) {
				throw wrap(thrown, "could not finish the result");
			}
		},
		async abort() {
			end("abort");
		},
	};
}

async function writeSome(fd: number, chunk: Uint8Array): Promise<number> {
	for (;;) {
		try {
			return (await writeAsync(fd, chunk)).bytesWritten;
		} catch (thrown) {
			if ((thrown as NodeJS.ErrnoException).code !== "EAGAIN") {
				throw thrown;
			}
			await sleep(2);
		}
	}
}
