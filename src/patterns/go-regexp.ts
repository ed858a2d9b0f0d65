import { SlipwayError } from "../errors/errors.ts";
import { type Condition, type Node, parseGoRegExp } from "./go-regexp-syntax.ts";

/**
 * Regular expressions as Go's `regexp` has them (RE2's syntax, leftmost-first matches), for expressions that come from strangers:
 * matching takes time in proportion to the product of the lengths of expression and text, whatever they are, where JavaScript's own
 * may take for ever.
 */
export interface GoRegExp {
	test(text: string): boolean;
	/** The leftmost match that begins at or behind `from`, in code units. */
	find(text: string, from?: number): GoMatch | undefined;
	/** By number of group; `""` for those without a name. */
	readonly names: readonly string[];
}

/** Positions are code units; group 0 is the whole match. */
export interface GoMatch {
	readonly start: number;
	readonly end: number;
	readonly groups: readonly (string | undefined)[];
}

type Instruction =
	| { readonly kind: "character"; readonly matches: (code: number) => boolean }
	| { readonly kind: "assert"; readonly condition: Condition }
	| { readonly kind: "save"; readonly slot: number }
	/** `first` is tried before `second`. */
	| { kind: "split"; first: number; second: number }
	| { kind: "jump"; to: number }
	| { readonly kind: "match" };

/** Several times what the largest repetition needs. */
const maxInstructions = 20_000;
/** Some tenths of a second. */
const maxSteps = 5_000_000;

/** Throws `invalid-argument` with Go's words. */
export function compileGoRegExp(source: string): GoRegExp {
	const { node, names } = parseGoRegExp(source);
	const program: Instruction[] = [];
	emit({ kind: "group", index: 0, node }, program, source);
	program.push({ kind: "match" });
	const run = (text: string, from: number, wantsGroups: boolean): GoMatch | undefined => {
		if (program.length * (text.length + 1 - from) > maxSteps) {
			throw new SlipwayError(
				"resource-exhausted",
				`the regular expression ${shortened(source)} takes too long for a text of ${text.length} characters`,
			);
		}
		return execute(program, text, from, wantsGroups ? names.length * 2 : 2);
	};
	return {
		names,
		test: (text) => run(text, 0, false) !== undefined,
		find: (text, from = 0) => run(text, from, true),
	};
}

function shortened(text: string): string {
	return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
}

function emit(node: Node, program: Instruction[], source: string): void {
	if (program.length > maxInstructions) {
		throw new SlipwayError("invalid-argument", `expression too large: ${shortened(source)}`);
	}
	switch (node.kind) {
		case "empty":
			return;
		case "character":
		case "assert":
			program.push(node);
			return;
		case "group":
			program.push({ kind: "save", slot: node.index * 2 });
			emit(node.node, program, source);
			program.push({ kind: "save", slot: node.index * 2 + 1 });
			return;
		case "sequence":
			for (const each of node.nodes) {
				emit(each, program, source);
			}
			return;
		case "choice":
			emitChoice(node.nodes, program, source);
			return;
		case "repeat":
			emitRepeat(node, program, source);
			return;
	}
}

function emitChoice(nodes: readonly Node[], program: Instruction[], source: string): void {
	const jumps: Extract<Instruction, { kind: "jump" }>[] = [];
	for (const [index, each] of nodes.entries()) {
		if (index === nodes.length - 1) {
			emit(each, program, source);
			break;
		}
		const split = { kind: "split" as const, first: program.length + 1, second: 0 };
		program.push(split);
		emit(each, program, source);
		const jump = { kind: "jump" as const, to: 0 };
		jumps.push(jump);
		program.push(jump);
		split.second = program.length;
	}
	for (const jump of jumps) {
		jump.to = program.length;
	}
}

function emitRepeat(
	{ node, min, max, greedy }: Extract<Node, { kind: "repeat" }>,
	program: Instruction[],
	source: string,
): void {
	for (let i = 0; i < (max === undefined ? min - 1 : min); i++) {
		emit(node, program, source);
	}
	const optional = (): Extract<Instruction, { kind: "split" }> => {
		const split = { kind: "split" as const, first: program.length + 1, second: program.length + 1 };
		program.push(split);
		return split;
	};
	const skip = (split: Extract<Instruction, { kind: "split" }>): void => {
		split[greedy ? "second" : "first"] = program.length;
	};
	if (max === undefined) {
		// `x*` is `(x+)?`, which matters for an `x` that may be empty.
		const none = min === 0 ? optional() : undefined;
		const start = program.length;
		emit(node, program, source);
		const split = { kind: "split" as const, first: start, second: start };
		program.push(split);
		for (const each of none === undefined ? [split] : [split, none]) {
			skip(each);
		}
		return;
	}
	const splits = Array.from({ length: max - min }, () => {
		const split = optional();
		emit(node, program, source);
		return split;
	});
	for (const split of splits) {
		skip(split);
	}
}

type Slots = readonly (number | undefined)[];

interface Thread {
	readonly at: number;
	readonly slots: Slots;
}

/** All ways through the program side by side, in the order of preference; each instruction once for each character. */
function execute(
	program: readonly Instruction[],
	text: string,
	from: number,
	slotCount: number,
): GoMatch | undefined {
	let threads: Thread[] = [];
	let found: Slots | undefined;
	let position = from;
	for (;;) {
		const code = text.codePointAt(position);
		const seen = new Uint8Array(program.length);
		const now: Thread[] = [];
		for (const thread of threads) {
			follow(program, thread, { text, position, seen, into: now });
		}
		if (found === undefined) {
			// A match that begins here is worse than any that began before.
			follow(program, { at: 0, slots: [] }, { text, position, seen, into: now });
		}
		const next: Thread[] = [];
		for (const { at, slots } of now) {
			const instruction = program[at];
			if (instruction?.kind === "match") {
				// What is behind it is less preferred.
				found = slots;
				break;
			}
			if (instruction?.kind === "character" && code !== undefined && instruction.matches(code)) {
				next.push({ at: at + 1, slots });
			}
		}
		if (code === undefined || (next.length === 0 && found !== undefined)) {
			break;
		}
		threads = next;
		position += code > 0xffff ? 2 : 1;
	}
	if (found === undefined) {
		return undefined;
	}
	const slots = found;
	const groups = Array.from({ length: slotCount / 2 }, (_, group) => {
		const [start, end] = [slots[group * 2], slots[group * 2 + 1]];
		return start === undefined || end === undefined ? undefined : text.slice(start, end);
	});
	return { start: slots[0] ?? 0, end: slots[1] ?? 0, groups };
}

/** Adds what can be reached without taking a character. */
function follow(
	program: readonly Instruction[],
	thread: Thread,
	{
		text,
		position,
		seen,
		into,
	}: {
		readonly text: string;
		readonly position: number;
		readonly seen: Uint8Array;
		readonly into: Thread[];
	},
): void {
	const stack: Thread[] = [thread];
	for (let now = stack.pop(); now !== undefined; now = stack.pop()) {
		const { at, slots } = now;
		const instruction = program[at];
		if (instruction === undefined || seen[at] === 1) {
			continue;
		}
		seen[at] = 1;
		switch (instruction.kind) {
			case "jump":
				stack.push({ at: instruction.to, slots });
				break;
			case "split":
				stack.push({ at: instruction.second, slots }, { at: instruction.first, slots });
				break;
			case "save":
				stack.push({ at: at + 1, slots: withSlot(slots, instruction.slot, position) });
				break;
			case "assert":
				if (holds(instruction.condition, text, position)) {
					stack.push({ at: at + 1, slots });
				}
				break;
			case "character":
			case "match":
				into.push(now);
				break;
		}
	}
}

function withSlot(slots: Slots, slot: number, position: number): Slots {
	const changed = [...slots];
	changed[slot] = position;
	return changed;
}

function holds(condition: Condition, text: string, position: number): boolean {
	switch (condition) {
		case "text start":
			return position === 0;
		case "text end":
			return position === text.length;
		case "line start":
			return position === 0 || text[position - 1] === "\n";
		case "line end":
			return position === text.length || text[position] === "\n";
		case "word boundary":
			return isWord(text[position - 1]) !== isWord(text[position]);
		case "no word boundary":
			return isWord(text[position - 1]) === isWord(text[position]);
	}
}

function isWord(character: string | undefined): boolean {
	return character !== undefined && /[0-9A-Za-z_]/.test(character);
}
