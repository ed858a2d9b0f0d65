import { resolve } from "node:path";
import { defaultRoot } from "../daemon/default-root.ts";
import { SlipwayError } from "../errors/errors.ts";
import { builderPlace } from "./builder-place.ts";
import { encodeFrame, frame } from "./command-frames.ts";
import { engineOptions } from "./engine-options.ts";
import { type FlagSpec, helpLines, parseFlags } from "./flags.ts";
import { connect } from "./forward.ts";
import type { Terminal } from "./terminal.ts";

const stopFlags: readonly FlagSpec[] = [
	{ name: "help", short: "h", kind: "bool", help: "Show this help" },
	{
		name: "root",
		kind: "string",
		value: "dir",
		help: "State directory (default $SLIPWAY_ROOT, else /var/lib/slipway)",
	},
];

/** `slipway stop`: resolves when the background builder of the state directory is gone; that none runs is fine too. */
export async function stopCommand(argv: readonly string[], terminal: Terminal): Promise<number> {
	const flags = parseFlags(argv, stopFlags);
	if (flags.bool("help")) {
		terminal.stdout.write(
			`${["Usage: slipway stop [flags]", "", "Ends the background builder when its builds have ended.", "", "Flags:", ...helpLines(stopFlags)].join("\n")}\n`,
		);
		return 0;
	}
	if (flags.args.length > 0) {
		throw new SlipwayError("invalid-argument", `slipway stop takes no arguments, but got ${flags.args[0]}`);
	}
	const { root = resolve(defaultRoot(terminal.env)) } = engineOptions(flags, terminal);
	const place = builderPlace(root, terminal.env);
	const socket = place === undefined ? undefined : await connect(place.commandSocket);
	if (socket === undefined) {
		return 0;
	}
	socket.write(encodeFrame(frame.stop));
	const interrupt = (): void => void socket.destroy();
	terminal.interrupted.addEventListener("abort", interrupt);
	await new Promise<void>((settle) => socket.once("close", () => settle()));
	terminal.interrupted.throwIfAborted();
	return 0;
}
