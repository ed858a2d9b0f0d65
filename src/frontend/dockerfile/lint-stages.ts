import type { SourceRange } from "../../errors/errors.ts";
import { toLower, toUpper } from "./go-text.ts";
import type { Stage } from "./instructions.ts";
import { consistentInstructionCasing, duplicateStageName, reservedStageName } from "./lint-rules.ts";
import type { Linter } from "./linter.ts";

/** Names that mean something else in FROM and `--from`. */
const reservedNames: ReadonlySet<string> = new Set(["context", "scratch"]);

/** Reports the rules about stages as a whole: their names, and one case for all instruction words. */
export function lintStages(stages: readonly Stage[], lint: Linter): void {
	lintStageNames(stages, lint);
	lintInstructionCasing(stages, lint);
}

function lintStageNames(stages: readonly Stage[], lint: Linter): void {
	const seen = new Set<string>();
	for (const { name, ranges } of stages) {
		if (name === "") {
			continue;
		}
		if (reservedNames.has(name)) {
			lint.report(reservedStageName, ranges, name);
		}
		if (seen.has(name)) {
			lint.report(duplicateStageName, ranges, name);
		}
		seen.add(name);
	}
}

interface Keyword {
	readonly keyword: string;
	readonly ranges: readonly SourceRange[];
}

function lintInstructionCasing(stages: readonly Stage[], lint: Linter): void {
	const keywords: readonly Keyword[] = stages.flatMap((stage): readonly Keyword[] => [
		stage,
		...stage.instructions,
	]);
	const lower = keywords.filter(({ keyword }) => keyword === toLower(keyword)).length;
	const upper = keywords.filter(({ keyword }) => keyword === toUpper(keyword)).length;
	const casing = lower > upper ? "lowercase" : "uppercase";
	const change = lower > upper ? toLower : toUpper;
	for (const { keyword, ranges } of keywords) {
		if (keyword !== change(keyword)) {
			lint.report(consistentInstructionCasing, ranges, keyword, casing);
		}
	}
}
