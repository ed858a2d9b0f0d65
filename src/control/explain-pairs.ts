import type { StepNote } from "./explain-steps.ts";

/** For a step of the present build the one of the last build that it was, and whether its text is the same. */
export interface Pair<T> {
	readonly before: T;
	readonly sameText: boolean;
}

/**
 * Steps are known by their text, in the order of their stage; where the text is new, by their place between those that are known: there an
 * instruction was edited.
 */
export function pairSteps<T extends StepNote>(
	before: readonly T[],
	now: readonly StepNote[],
): ReadonlyMap<number, Pair<T>> {
	const pairs = new Map<number, Pair<T>>();
	for (const stage of new Set(now.map((step) => `${step.kind === "source"}:${step.stage}`))) {
		const inStage = (step: StepNote): boolean => `${step.kind === "source"}:${step.stage}` === stage;
		const old = before.filter(inStage);
		const current = now.flatMap((step, index) => (inStage(step) ? [{ step, index }] : []));
		const known = longestCommon(
			old.map(textOf),
			current.map(({ step }) => textOf(step)),
		);
		let nextOld = 0;
		let waiting: number[] = [];
		const settle = (untilOld: number): void => {
			const free = old.slice(nextOld, untilOld);
			for (const [place, index] of waiting.entries()) {
				const step = free.filter((each) => each.kind === now[index]?.kind)[place];
				if (step !== undefined) {
					pairs.set(index, { before: step, sameText: false });
				}
			}
			waiting = [];
		};
		for (const [place, { index }] of current.entries()) {
			const partner = known.get(place);
			if (partner === undefined) {
				waiting.push(index);
				continue;
			}
			settle(partner);
			nextOld = partner + 1;
			const step = old[partner];
			if (step !== undefined) {
				pairs.set(index, { before: step, sameText: true });
			}
		}
		settle(old.length);
	}
	return pairs;
}

/** Without the step's number, which changes with its neighbours. */
export function textOf(step: StepNote): string {
	if (step.kind === "source") {
		return (step.fields["identifier"] ?? step.name).replace(/@sha256:[0-9a-f]+$/, "");
	}
	return `${step.kind} ${step.command || step.name.replace(/\s+\d+\/\d+\]/, "]")}`;
}

/** Places in `b` with their partners in `a`; quadratic in the length of a stage, up to a limit. */
function longestCommon(a: readonly string[], b: readonly string[]): ReadonlyMap<number, number> {
	const partners = new Map<number, number>();
	let start = 0;
	while (start < a.length && start < b.length && a[start] === b[start]) {
		partners.set(start, start);
		start++;
	}
	const rows = a.length - start;
	const columns = b.length - start;
	if (rows === 0 || columns === 0 || rows * columns > maxCells) {
		return partners;
	}
	const lengths = Array.from({ length: rows + 1 }, () => new Uint32Array(columns + 1));
	const at = (row: number, column: number): number => lengths[row]?.[column] ?? 0;
	for (let row = rows - 1; row >= 0; row--) {
		for (let column = columns - 1; column >= 0; column--) {
			(lengths[row] as Uint32Array)[column] =
				a[start + row] === b[start + column]
					? at(row + 1, column + 1) + 1
					: Math.max(at(row + 1, column), at(row, column + 1));
		}
	}
	for (let row = 0, column = 0; row < rows && column < columns; ) {
		if (a[start + row] === b[start + column]) {
			partners.set(start + column, start + row);
			row++;
			column++;
		} else if (at(row + 1, column) >= at(row, column + 1)) {
			row++;
		} else {
			column++;
		}
	}
	return partners;
}

const maxCells = 4_000_000;
