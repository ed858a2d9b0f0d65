import type { ExplainedStep, Explanation, Reason } from "../control/explain.ts";
import { SlipwayError } from "../errors/errors.ts";
import type { ParsedFlags } from "./flags.ts";

export type ExplainFormat = "text" | "json";

/** `--explain`, `--explain=json`. */
export function explainFormat(flags: ParsedFlags): ExplainFormat | undefined {
	const format = flags.string("explain");
	if (format === undefined || format === "text" || format === "json") {
		return format;
	}
	throw new SlipwayError("invalid-argument", `invalid --explain ${format}: text or json`);
}

/** Files that are shown of one step. */
const maxFiles = 10;

export function explanationText({ steps, cached }: Explanation): string {
	const cachedText = cached === 1 ? "1 step was cached" : `${cached} steps were cached`;
	if (steps.length === 0) {
		return `\nNo step ran, ${cachedText}.\n`;
	}
	const noun = steps.length === 1 ? "1 step ran" : `${steps.length} steps ran`;
	return `\n${noun}, ${cachedText}:\n${steps.map(stepText).join("")}`;
}

function stepText({ name, place, reasons }: ExplainedStep): string {
	const where = place === undefined ? "" : ` (${place.file}:${place.line})`;
	return `\n${name}${where}\n${reasons.map((reason) => `  ${reasonText(reason)}\n`).join("")}`;
}

function reasonText(reason: Reason): string {
	switch (reason.kind) {
		case "first-build":
			return "no earlier build of this project is known";
		case "new-step":
			return "the step is new";
		case "instruction":
			return `the instruction changed, it was: ${reason.before}`;
		case "argument":
			return `${reason.name} ${changeText(reason)}`;
		case "option":
			return `its ${reason.name} ${changeText(reason)}`;
		case "base":
			return `the base image ${reason.image} changed: ${reason.before} → ${reason.after}`;
		case "files": {
			const more = reason.total - Math.min(reason.files.length, maxFiles);
			const files = reason.files
				.slice(0, maxFiles)
				.map(({ path, change }) => `\n    ${change.padEnd(8)}${path}`);
			if (reason.total === 0) {
				return `files of ${reason.from} changed, which it mounts`;
			}
			return `files of ${reason.from} changed:${files.join("")}${more > 0 ? `\n    and ${more} more` : ""}`;
		}
		case "step":
			return `it builds on a step that ran: ${reason.name}`;
		case "order":
			return `it builds on ${reason.after}, it was ${reason.before}`;
		case "no-cache":
			return "the cache was not to be used";
		case "gone":
			return "nothing changed, but its result was pruned";
		case "unknown":
			return "nothing is known to have changed: neither instruction, arguments, base nor copied files";
	}
}

function changeText({
	before,
	after,
}: {
	readonly before: string | undefined;
	readonly after: string | undefined;
}): string {
	if (before === undefined) {
		return `was added: ${shortened(after ?? "")}`;
	}
	return after === undefined
		? `was removed, it was ${shortened(before)}`
		: `changed from ${shortened(before)} to ${shortened(after)}`;
}

function shortened(text: string): string {
	const shown = text.length > 200 ? `${text.slice(0, 200)}…` : text;
	return JSON.stringify(shown);
}
