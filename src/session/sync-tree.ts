import { readdirSync, realpathSync, statSync } from "node:fs";
import { SlipwayError, wrap } from "../errors/errors.ts";
import { observeTree } from "./observe-tree.ts";
import type { SyncRequest, SyncSummary } from "./session.ts";
import { sourceFilter } from "./source-patterns.ts";
import { applySync } from "./sync-apply.ts";
import { planSync } from "./sync-plan.ts";
import { decodeTreeState, encodeTreeState } from "./tree-state.ts";

export interface SyncTreeOptions {
	/** The client's directory. */
	readonly source: string;
	readonly request: Omit<SyncRequest, "name">;
	readonly throwIfAborted: () => void;
	readonly onBytes: (total: number) => void;
	/** Work beyond these is given up before anything is written. */
	readonly limits: SyncLimits;
}

export interface SyncLimits {
	/** Entries of the source. */
	readonly entries: number;
	/** Changes to the target, and bytes of them. */
	readonly steps: number;
	readonly bytes: number;
}

/** Blocks the thread until `request.target` equals what is shown of the source. Undefined: more work than the limits allow. */
export function syncTree(options: SyncTreeOptions): SyncSummary | undefined {
	const { request, limits, throwIfAborted } = options;
	const source = resolveSource(options.source);
	const { filter, key } = sourceFilter(source, request);
	const known = request.previous === undefined ? undefined : decodeTreeState(request.previous);
	const isEmpty = known === undefined && readdirSync(request.target).length === 0;
	if (known === undefined && !isEmpty && limits.entries !== Number.POSITIVE_INFINITY) {
		// How much there is to look at in the target is anyone's guess.
		return undefined;
	}
	const plan = planSync({
		source,
		target: request.target,
		filter,
		filterKey: key,
		previous: known ?? (isEmpty ? undefined : observeTree(request.target, throwIfAborted)),
		// What was remembered of a sync names the very file (inode and change time) that was copied: nothing can be missed.
		force: request.differ === "none" && known === undefined,
		maxEntries: limits.entries,
		throwIfAborted,
	});
	if (plan === undefined || plan.steps.length > limits.steps || plan.bytes > limits.bytes) {
		return undefined;
	}
	if (plan.unchanged && request.previous !== undefined) {
		return { bytes: 0, changed: [], state: request.previous };
	}
	const { bytes, changed } = applySync(plan, {
		source,
		target: request.target,
		throwIfAborted,
		onBytes: options.onBytes,
	});
	return { bytes, changed, state: encodeTreeState(plan.next, key) };
}

function resolveSource(path: string): string {
	try {
		const resolved = realpathSync(path);
		if (!statSync(resolved).isDirectory()) {
			throw new SlipwayError("failed-precondition", `${path} is not a directory`);
		}
		return resolved;
	} catch (thrown) {
		throw wrap(thrown, "could not read local directory");
	}
}
