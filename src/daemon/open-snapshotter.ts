import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import type { ThreadPool } from "../async/pool.ts";
import { SlipwayError } from "../errors/errors.ts";
import { openNativeSnapshotter } from "../snapshot/native.ts";
import { openOverlaySnapshotter } from "../snapshot/overlay.ts";
import type { Snapshotter } from "../snapshot/snapshot.ts";

export interface OpenSnapshotterOptions {
	readonly wanted: "auto" | "overlayfs" | "native";
	readonly stateRoot: string;
	readonly pool: ThreadPool;
	readonly beforeMounts: () => void;
	readonly warn: (message: string) => void;
}

/** What the state directory was made with, and the kernel on which that was last tried: `{"name":"overlayfs","kernel":"6.1.0"}`. */
interface Choice {
	readonly name: Snapshotter["name"];
	readonly kernel: string;
}

/**
 * The snapshotter of a state directory: the one that its snapshots were made with, or for a new directory overlayfs if that works
 * there. Whether it works is tried once per kernel and remembered, since trying needs mounts.
 */
export function openSnapshotter(options: OpenSnapshotterOptions): Snapshotter {
	const { stateRoot, wanted, pool } = options;
	const open = { root: join(stateRoot, "snapshots"), pool };
	const file = join(stateRoot, "snapshotter");
	const known = readChoice(file);
	if (known !== undefined && wanted !== "auto" && wanted !== known.name) {
		throw new SlipwayError(
			"failed-precondition",
			`state directory ${stateRoot} was made with the ${known.name} snapshotter: use that, or another directory with --root`,
		);
	}
	const kernel = release();
	const name = known?.name ?? wanted;
	if (name === "native") {
		remember(file, known, { name, kernel });
		return openNativeSnapshotter(open);
	}
	const tried = known?.kernel === kernel;
	try {
		if (!tried) {
			options.beforeMounts();
		}
		const snapshotter = openOverlaySnapshotter({ ...open, lazy: tried });
		remember(file, known, { name: "overlayfs", kernel });
		return snapshotter;
	} catch (error) {
		if (known !== undefined || wanted === "overlayfs") {
			throw error;
		}
		options.warn(
			`layers are copied, because overlayfs cannot be used: ${error instanceof Error ? error.message : error}`,
		);
		remember(file, known, { name: "native", kernel });
		return openNativeSnapshotter(open);
	}
}

function readChoice(file: string): Choice | undefined {
	try {
		const choice = JSON.parse(readFileSync(file, "utf8")) as Partial<Choice>;
		if ((choice.name === "overlayfs" || choice.name === "native") && typeof choice.kernel === "string") {
			return { name: choice.name, kernel: choice.kernel };
		}
	} catch {
		// Not there yet.
	}
	return undefined;
}

function remember(file: string, known: Choice | undefined, choice: Choice): void {
	if (known?.name !== choice.name || known.kernel !== choice.kernel) {
		writeFileSync(`${file}.new`, JSON.stringify(choice));
		renameSync(`${file}.new`, file);
	}
}
