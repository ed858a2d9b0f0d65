import { SlipwayError } from "../../errors/errors.ts";
import { trimSpace } from "./go-text.ts";
import type { CommandLine, Stage } from "./instructions.ts";
import type { InstructionNode } from "./parser.ts";

/** What every instruction takes over from its node. */
export function common(node: InstructionNode): Pick<Stage, "keyword" | "source" | "ranges" | "comments"> {
	const { keyword, original, ranges, comments } = node;
	return { keyword, source: trimSpace(original), ranges, comments };
}

/** The words of an instruction that has words; pairs and triggers have none. */
export function wordsOf(node: InstructionNode): readonly string[] {
	return node.arguments.kind === "words" ? node.arguments.words : [];
}

export function isJson(node: InstructionNode): boolean {
	return node.arguments.kind === "words" && node.arguments.json;
}

export function commandLine(node: InstructionNode): CommandLine {
	return { words: wordsOf(node), shell: !isJson(node) };
}

export function atLeastOne<T>(list: readonly T[], name: string): readonly T[] {
	if (list.length === 0) {
		throw invalid(`${name} requires at least one argument`);
	}
	return list;
}

export function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
