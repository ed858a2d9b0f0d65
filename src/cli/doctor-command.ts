import { SlipwayError } from "../errors/errors.ts";
import { type FlagSpec, helpLines, parseFlags } from "./flags.ts";
import type { Terminal } from "./terminal.ts";

const doctorFlags: readonly FlagSpec[] = [
	{ name: "help", short: "h", kind: "bool", help: "Show this help" },
	{ name: "json", kind: "bool", help: "Print the findings as JSON" },
];

const marks = { good: "ok   ", lacking: "lacks", bad: "FAIL " } as const;

/** `slipway doctor`: exit code 1 if nothing can be built here. */
export async function doctorCommand(argv: readonly string[], terminal: Terminal): Promise<number> {
	const flags = parseFlags(argv, doctorFlags);
	if (flags.bool("help")) {
		terminal.stdout.write(
			`${["Usage: slipway doctor [flags]", "", "Says how this machine lets this user build, why, and what each choice loses.", "", "Flags:", ...helpLines(doctorFlags)].join("\n")}\n`,
		);
		return 0;
	}
	if (flags.args.length > 0) {
		throw new SlipwayError("invalid-argument", `slipway doctor takes no arguments, but got ${flags.args[0]}`);
	}
	const { examineMachine } = await import("../daemon/doctor.ts");
	const { mode, findings } = await examineMachine(terminal.env);
	if (flags.bool("json")) {
		terminal.stdout.write(`${JSON.stringify({ mode, findings }, undefined, 2)}\n`);
	} else {
		const width = Math.max(...findings.map(({ subject }) => subject.length));
		const lines = findings.flatMap(({ state, subject, text, advice }) => [
			`${marks[state]}  ${subject.padEnd(width)}  ${text}`,
			...(advice === undefined ? [] : [`${" ".repeat(width + 9)}${advice}`]),
		]);
		terminal.stdout.write(`${[`Mode: ${mode.name}. ${mode.text}`, "", ...lines].join("\n")}\n`);
	}
	return findings.some(({ state }) => state === "bad") ? 1 : 0;
}
