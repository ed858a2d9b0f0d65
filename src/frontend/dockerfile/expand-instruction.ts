import type { AddInstruction, CopyInstruction, Instruction, KeyValue } from "./instructions.ts";
import { parseMount } from "./run-flags.ts";

/** How the words of an instruction are expanded; each may throw, and the caller sees what was not defined. */
export interface WordExpander {
	/** One word to one word, quotes removed. */
	word(text: string): string;
	/** One word to any number: EXPOSE. BuildKit reports no undefined variables here. */
	words(text: string): readonly string[];
	/** The body of a heredoc: variables only, quotes are text, the escape token is always the backslash. */
	document(text: string): string;
}

/**
 * The instruction with its variables replaced, in BuildKit's places and order. ARG is returned as it is, for its
 * default counts only if no build argument overrides it, and only then may its expansion fail.
 */
export function expandInstruction<T extends Instruction>(instruction: T, expander: WordExpander): T;
export function expandInstruction(instruction: Instruction, expander: WordExpander): Instruction {
	switch (instruction.kind) {
		case "add": {
			const chown = expander.word(instruction.chown);
			const chmod = expander.word(instruction.chmod);
			const checksum = expander.word(instruction.checksum);
			return { ...instruction, chown, chmod, checksum, ...expandPaths(instruction, expander) };
		}
		case "copy": {
			const chown = expander.word(instruction.chown);
			const chmod = expander.word(instruction.chmod);
			return { ...instruction, chown, chmod, ...expandPaths(instruction, expander) };
		}
		case "env":
		case "label":
			return { ...instruction, pairs: expandPairs(instruction.pairs, expander) };
		case "expose":
			return { ...instruction, ports: instruction.ports.flatMap((port) => expander.words(port)) };
		case "run": {
			const expand = (value: string): string => expander.word(value);
			return { ...instruction, mounts: instruction.mountFlags.map((flag) => parseMount(flag, expand)) };
		}
		case "stopsignal":
			return { ...instruction, signal: expander.word(instruction.signal) };
		case "user":
			return { ...instruction, user: expander.word(instruction.user) };
		case "volume":
			return { ...instruction, volumes: instruction.volumes.map((volume) => expander.word(volume)) };
		case "workdir":
			return { ...instruction, path: expander.word(instruction.path) };
		case "arg":
		case "cmd":
		case "entrypoint":
		case "healthcheck":
		case "maintainer":
		case "onbuild":
		case "shell":
			return instruction;
	}
}

function expandPaths(
	instruction: AddInstruction | CopyInstruction,
	expander: WordExpander,
): Pick<CopyInstruction, "sources" | "destination" | "documents"> {
	const sources = instruction.sources.map((source) => expander.word(source));
	const destination = expander.word(instruction.destination);
	const documents = instruction.documents.map((document) =>
		document.expand ? { ...document, content: expander.document(document.content) } : document,
	);
	return { sources, destination, documents };
}

function expandPairs(pairs: readonly KeyValue[], expander: WordExpander): readonly KeyValue[] {
	return pairs.map((pair) => {
		const key = expander.word(pair.key);
		return { ...pair, key, value: expander.word(pair.value) };
	});
}
