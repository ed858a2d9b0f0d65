import { resolve } from "node:path";
import type { EngineOptions } from "../daemon/engine.ts";
import { SlipwayError } from "../errors/errors.ts";
import type { ParsedFlags } from "./flags.ts";
import type { Terminal } from "./terminal.ts";

/** From `--root`, `--snapshotter`, `--runtime`. */
export function engineOptions(flags: ParsedFlags, terminal: Terminal): EngineOptions {
	const root = flags.string("root") ?? terminal.env["SLIPWAY_ROOT"];
	const snapshotter = flags.string("snapshotter") ?? "auto";
	if (snapshotter !== "auto" && snapshotter !== "overlayfs" && snapshotter !== "native") {
		throw new SlipwayError(
			"invalid-argument",
			`invalid snapshotter ${JSON.stringify(snapshotter)}: use auto, overlayfs or native`,
		);
	}
	const runtime = flags.string("runtime");
	return {
		...(root === undefined || root === "" ? {} : { root: resolve(terminal.cwd, root) }),
		snapshotter,
		...(runtime === undefined ? {} : { runtime }),
		env: terminal.env,
		warn: (message) => terminal.stderr.write(`WARNING: ${message}\n`),
	};
}
