import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { toError, wrap } from "../errors/errors.ts";

/**
 * What is remembered about a synced directory, in a file beside it. The file is out of sight while the directory is written
 * to, so that a builder that dies meanwhile leaves none. It is not flushed to disk: it counts only until the machine is
 * started again, as a power failure may keep the file and lose what it speaks of.
 */
export interface SyncStateFile {
	/** Takes the state away from the next reader; undefined if there is none to rely on. */
	take(): Uint8Array | undefined;
	/** Makes `state` what the next reader finds. */
	put(state: Uint8Array): void;
}

export function syncStateFile(directory: string, bootId: string = readBootId()): SyncStateFile {
	const file = `${directory}.sync`;
	const taken = `${file}.taken`;
	let previous: Uint8Array | undefined;
	const header = Buffer.from(`${bootId}\n`.padStart(headerBytes));
	return {
		take() {
			try {
				renameSync(file, taken);
				const bytes = readFileSync(taken);
				previous =
					bytes.length > headerBytes && header.equals(bytes.subarray(0, headerBytes))
						? bytes.subarray(headerBytes)
						: undefined;
				return previous;
			} catch (thrown) {
				const error = toError(thrown);
				if (error.code === "not-found") {
					return undefined;
				}
				throw wrap(error, "could not read the state of the copy");
			}
		},
		put(state) {
			try {
				if (previous !== undefined && Buffer.compare(previous, state) === 0) {
					renameSync(taken, file);
					return;
				}
				writeFileSync(`${file}.new`, Buffer.concat([header, state]));
				renameSync(`${file}.new`, file);
				rmSync(taken, { force: true });
			} catch (thrown) {
				throw wrap(thrown, "could not keep the state of the copy");
			}
		},
	};
}

/** A boot id and its line end, and then the state at an offset that arrays of 8-byte numbers can start at. */
const headerBytes = 40;

let bootId: string | undefined;

function readBootId(): string {
	try {
		bootId ??= readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
		return bootId;
	} catch (thrown) {
		throw wrap(thrown, "could not read the id of this boot");
	}
}
