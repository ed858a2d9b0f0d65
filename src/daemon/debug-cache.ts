import { parseConfig } from "../remotecache/config.ts";
import type { KeyLink } from "../solver/solver.ts";

/** Cache keys and what leads from one to another: of the builder, or of an exported cache. */
export interface KeyGraph {
	/** Keys that nothing leads to. */
	readonly roots: readonly string[];
	readonly links: readonly { readonly from: string; readonly link: KeyLink; readonly to: string }[];
}

/** As BuildKit's `/debug/cache/store` numbers and shows them. */
interface KeyRecord {
	readonly id: number;
	/** Of a key without inputs. */
	readonly digest: string | undefined;
	/** Good for one build only. */
	readonly random: boolean;
	readonly parents: readonly (KeyLink & { readonly target: number })[];
	/** By output of this key, the records that one gets to. */
	readonly children: ReadonlyMap<number, readonly number[]>;
}

/** The config of an exported cache (`application/vnd.buildkit.cacheconfig.v0`). Throws `invalid-argument` for what is none. */
export function graphOfConfig(bytes: Uint8Array): KeyGraph {
	const { records } = parseConfig(bytes);
	const names = records.map(({ digest, inputs }, index) =>
		inputs.length === 0 ? digest : `record ${index}`,
	);
	return {
		roots: [...new Set(names.filter((_, index) => records[index]?.inputs.length === 0))],
		links: records.flatMap(({ digest, inputs }, index) =>
			inputs.flatMap((alternatives, input) =>
				alternatives.flatMap(({ selector, link }) => {
					const from = names[link];
					const to = names[index];
					return from === undefined || to === undefined
						? []
						: [
								{
									from,
									to,
									link: {
										input,
										output: 0,
										digest,
										...(selector === "" || selector === undefined ? {} : { selector }),
									} as KeyLink,
								},
							];
				}),
			),
		),
	};
}

/** Roots first, each followed by what it leads to. */
function recordsOf({ roots, links }: KeyGraph): readonly KeyRecord[] {
	const from = Map.groupBy(links, (each) => each.from);
	const to = Map.groupBy(links, (each) => each.to);
	const numbers = new Map<string, number>();
	const pending = roots.toReversed();
	for (let key = pending.pop(); key !== undefined; key = pending.pop()) {
		if (!numbers.has(key)) {
			numbers.set(key, numbers.size + 1);
			pending.push(...(from.get(key) ?? []).map((each) => each.to).reverse());
		}
	}
	const rootKeys = new Set(roots);
	const numberOf = (key: string): number => numbers.get(key) ?? 0;
	return [...numbers].map(([key, id]) => ({
		id,
		digest: rootKeys.has(key) ? key.replace(/^random:/, "sha256:") : undefined,
		random: key.startsWith("random:"),
		parents: (to.get(key) ?? [])
			.map((each) => ({ ...each.link, target: numberOf(each.from) }))
			.sort((a, b) => a.input - b.input || (a.digest < b.digest ? -1 : 1)),
		children: new Map(
			[...Map.groupBy(from.get(key) ?? [], (each) => each.link.output)].map(([output, next]) => [
				output,
				[...new Set(next.map((each) => numberOf(each.to)))],
			]),
		),
	}));
}

export function keyGraphJson(graph: KeyGraph): string {
	const documents = recordsOf(graph).map(({ id, digest, random, parents, children }) => ({
		id,
		...(parents.length === 0
			? {}
			: {
					parents: parents.map((parent) => ({
						input: parent.input,
						output: parent.output,
						digest: parent.digest,
						...(parent.selector === undefined ? {} : { selector: parent.selector }),
						target: parent.target,
					})),
				}),
		...(digest === undefined ? {} : { digest }),
		...(random ? { random } : {}),
		...(children.size === 0
			? {}
			: {
					children: Object.fromEntries(
						[...children].map(([output, ids]) => [output, Object.fromEntries(ids.map((each) => [each, {}]))]),
					),
				}),
	}));
	return `${JSON.stringify(documents, undefined, 2)}\n`;
}

export function keyGraphText(graph: KeyGraph): string {
	const lines: string[] = [];
	for (const { id, digest, random, parents, children } of recordsOf(graph)) {
		lines.push(`ID: ${id}${random ? " (random)" : ""}`);
		if (digest !== undefined) {
			lines.push(`Digest: ${digest}`);
		}
		if (parents.length > 0) {
			lines.push("Parents:");
		}
		for (const { input, target, digest: link, selector } of parents) {
			lines.push(`  Input ${input}:\t${target}\t${link}`);
			if (selector !== undefined) {
				lines.push(`    Selector: ${selector}`);
			}
		}
		if (children.size > 0) {
			lines.push("Children:");
		}
		for (const [output, ids] of children) {
			lines.push(`  Input ${output}:\t ${ids.join(", ")}`);
		}
		lines.push("");
	}
	return `${lines.join("\n")}\n`;
}
