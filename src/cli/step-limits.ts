import { SlipwayError } from "../errors/errors.ts";
import type { ParsedFlags } from "./flags.ts";

/** Options of a build that no frontend reads: how long a step may take, and how many run at once. */
export function stepLimitOptions(flags: ParsedFlags): Readonly<Record<string, string>> {
	const options: Record<string, string> = {};
	const timeout = flags.string("step-timeout");
	if (timeout !== undefined) {
		options["step-timeout"] = `${durationMs("--step-timeout", timeout)}ms`;
	}
	const parallelism = flags.string("max-parallelism");
	if (parallelism !== undefined) {
		if (!/^[1-9]\d{0,5}$/.test(parallelism)) {
			throw new SlipwayError(
				"invalid-argument",
				`invalid value ${JSON.stringify(parallelism)} for --max-parallelism: use a number of steps, at least 1`,
			);
		}
		options["max-parallelism"] = parallelism;
	}
	return options;
}

const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** `90s`, `1h30m`, a number of seconds. */
function durationMs(flag: string, text: string): number {
	const seconds = /^\d+$/.test(text) ? `${text}s` : text;
	const parts = [...seconds.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/gy)];
	const length = parts.reduce((sum, [part]) => sum + part.length, 0);
	const total = parts.reduce((sum, [, number, unit]) => sum + Number(number) * (units[unit ?? ""] ?? 0), 0);
	if (length !== seconds.length || total < 1) {
		throw new SlipwayError(
			"invalid-argument",
			`invalid duration ${JSON.stringify(text)} for ${flag}: use a time such as 90s, 10m or 1h30m`,
		);
	}
	return Math.round(total);
}
