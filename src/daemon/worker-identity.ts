import { readFileSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import type { WorkerIdentity } from "../frontend/frontend.ts";
import { newIdentity } from "../oci/identity.ts";

export interface WorkerTraits {
	readonly snapshotter: string;
	/** What steps' network is. */
	readonly network: string;
	/** Of the operator; they win. */
	readonly labels?: Readonly<Record<string, string>>;
}

/** The name that clients know the worker of a state directory by; made once and kept. Labels are BuildKit's. */
export function openWorkerIdentity(
	root: string,
	{ snapshotter, network, labels = {} }: WorkerTraits,
): WorkerIdentity {
	const prefix = "org.mobyproject.buildkit.worker.";
	return {
		id: keptId(join(root, "workerid")),
		labels: new Map([
			[`${prefix}executor`, "oci"],
			[`${prefix}hostname`, hostname()],
			[`${prefix}network`, network],
			[`${prefix}oci.process-mode`, "sandbox"],
			[`${prefix}selinux.enabled`, "false"],
			[`${prefix}snapshotter`, snapshotter],
			...Object.entries(labels),
		]),
	};
}

function keptId(file: string): string {
	try {
		const kept = readFileSync(file, "utf8").trim();
		if (/^[a-z0-9]{25}$/.test(kept)) {
			return kept;
		}
	} catch {
		// A new state directory.
	}
	const id = newIdentity();
	writeFileSync(file, id, { mode: 0o600 });
	return id;
}
