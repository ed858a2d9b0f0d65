import type { WarningRecord } from "../progress/progress.ts";
import { formatSourceExcerpt } from "../progress/source-excerpt.ts";
import type { Terminal } from "./terminal.ts";

/** What the frontend found doubtful, once each, as buildx prints it after the build; in full with `debug`. */
export function printWarnings(
	warnings: readonly WarningRecord[],
	{ stderr, env }: Pick<Terminal, "stderr" | "env">,
	{ debug }: { readonly debug: boolean },
): void {
	const unique = [...new Map(warnings.map((warning) => [keyOf(warning), warning])).values()];
	if (unique.length === 0) {
		return;
	}
	const noun = unique.length === 1 ? "1 warning found" : `${unique.length} warnings found`;
	const heading = `${noun}${debug ? "" : " (use --debug to expand)"}:`;
	const coloured = stderr.isTTY === true && !env["NO_COLOR"] ? `\x1b[33m${heading}\x1b[0m` : heading;
	const items = unique.map((warning) => ` - ${warning.short}\n${debug ? inFull(warning) : ""}`);
	stderr.write(`\n ${coloured}\n${items.join("")}`);
}

function keyOf({ short, source, ranges }: WarningRecord): string {
	return JSON.stringify([short, source?.filename, ranges]);
}

function inFull({ detail, url, source, ranges = [] }: WarningRecord): string {
	const lines = [...detail, ...(url === undefined ? [] : [`More info: ${url}`])].map((line) => `${line}\n`);
	const excerpt =
		source === undefined || ranges.length === 0
			? ""
			: formatSourceExcerpt({ kind: "source", file: source, ranges });
	return `${lines.join("")}${excerpt}\n`;
}
