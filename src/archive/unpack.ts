import { closeSync, constants, fstatSync, lstatSync, openSync, readSync } from "node:fs";
import { hasCode, SlipwayError, toError, wrap } from "../errors/errors.ts";
import { bytesOf } from "../sys/byte-names.ts";
import { spawn } from "../sys/spawn.ts";
import type { UnpackRequest } from "./archive.ts";
import { decompress, detectCompression, magicBytes, readChunks, type StoredKind } from "./decompress.ts";
import { Extractor } from "./extract.ts";
import type { Control } from "./layer.ts";
import { TarReader } from "./tar-reader.ts";

/**
 * ADD of a local archive, as Docker's builder unpacks it: in a chroot of the target folder, whiteouts as ordinary files, owners
 * as the archive says unless the instruction names one.
 */
export async function unpack(request: UnpackRequest, control: Control): Promise<void> {
	const extractor = new Extractor({
		root: bytesOf(request.dest),
		whiteouts: "keep",
		parents: [],
		owner: request.owner ?? "archive",
		bestEffortXattrs: true,
		limits: request.limits ?? {},
		throwIfAborted: control.throwIfAborted,
	});
	const reader = new TarReader(extractor);
	try {
		for await (const chunk of openArchive(request.path, control)) {
			reader.push(chunk);
		}
		reader.end();
		extractor.finish();
	} catch (thrown) {
		throw control.signal.aborted ? toError(control.signal.reason) : wrap(thrown, `unpack ${request.path}`);
	} finally {
		extractor.close();
	}
}

/** True if the file is regular and the first header of a tar can be read from it. A folder, a link or any other file is none. */
export async function isArchive(path: string, control: Control): Promise<boolean> {
	let found = false;
	const stop = new SlipwayError("internal", "first entry seen");
	const seen = (): void => {
		found = true;
		throw stop;
	};
	const reader = new TarReader({ entry: seen, data: seen, hole: seen, end: seen });
	try {
		if (!lstatSync(path).isFile()) {
			return false;
		}
		for await (const chunk of openArchive(path, control)) {
			reader.push(chunk);
			if (reader.ended) {
				return false;
			}
		}
		return false;
	} catch (thrown) {
		if (control.signal.aborted) {
			throw toError(control.signal.reason);
		}
		// Whatever is wrong with it, it is no archive, and will be copied; but a program that lacks is worth saying.
		if (hasCode(thrown, "failed-precondition")) {
			throw thrown;
		}
		return found;
	}
}

async function* openArchive(path: string, control: Control): AsyncGenerator<Uint8Array> {
	const kind = detectCompression(headOf(path));
	if (kind === "bzip2" || kind === "xz") {
		yield* byProgram(path, kind, control);
	} else {
		yield* decompress(readChunks(path), kind, control.signal);
	}
}

function headOf(path: string): Uint8Array {
	let fd: number;
	try {
		fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
	} catch (thrown) {
		throw toError(thrown);
	}
	try {
		const head = Buffer.alloc(magicBytes);
		return head.subarray(0, readSync(fd, head, 0, Math.min(magicBytes, fstatSync(fd).size), 0));
	} finally {
		closeSync(fd);
	}
}

/** Debian's and Alpine's packages for the programs. */
const packages: Readonly<Record<Exclude<StoredKind, "gzip" | "zstd" | "uncompressed">, string>> = {
	bzip2: "bzip2",
	xz: "xz-utils",
};

async function* byProgram(path: string, kind: "bzip2" | "xz", control: Control): AsyncGenerator<Uint8Array> {
	const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
	try {
		using child = start(kind, fd, path);
		for await (const chunk of child.output) {
			control.signal.throwIfAborted();
			yield chunk;
		}
		await child.finish();
	} finally {
		closeSync(fd);
	}
}

interface Decompressor extends Disposable {
	readonly output: AsyncIterable<Uint8Array>;
	/** Fails if the program did. */
	finish(): Promise<void>;
}

function start(kind: "bzip2" | "xz", stdin: number, path: string): Decompressor {
	const env = { PATH: process.env["PATH"] ?? "/usr/local/bin:/usr/bin:/bin", LC_ALL: "C" };
	try {
		const child = spawn({ argv: [kind, "-d", "-c", "-q"], env, stdin });
		const errors: Uint8Array[] = [];
		child.stderr?.on("data", (chunk: Uint8Array) => errors.push(chunk));
		let ended = false;
		void child.exited.then(() => {
			ended = true;
		});
		return {
			output: child.stdout ?? noBytes(),
			async finish() {
				const { code } = await child.exited;
				if (code !== 0) {
					const text = Buffer.concat(errors).toString("utf8").trim();
					throw new SlipwayError("data-loss", `${kind} failed on ${path} with code ${code}: ${text}`);
				}
			},
			[Symbol.dispose]() {
				child.stdout?.destroy();
				child.stderr?.destroy();
				if (!ended) {
					child.kill("SIGKILL");
				}
			},
		};
	} catch (thrown) {
		if (hasCode(thrown, "not-found")) {
			throw new SlipwayError(
				"failed-precondition",
				`${path} is compressed with ${kind}, which needs the program ${kind}: install the package ${packages[kind]}`,
				{ cause: thrown },
			);
		}
		throw thrown;
	}
}

async function* noBytes(): AsyncGenerator<Uint8Array> {}
