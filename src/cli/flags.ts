import { SlipwayError } from "../errors/errors.ts";
import { csvFields } from "../oci/csv-fields.ts";

/**
 * Command line flags in the manner of Docker's CLI: `--name value`, `--name=value`, `-n value`, `-nvalue`, `-n=value`; booleans
 * need no value; lists may be repeated; `--` ends the flags; flags and arguments may be mixed.
 */
export interface FlagSpec {
	readonly name: string;
	/** One letter. */
	readonly short?: string;
	readonly kind: "bool" | "string" | "list";
	/** Shown for the value in the help text. */
	readonly value?: string;
	/** The value of a string flag that is given without `=`; it then takes no other word. */
	readonly bare?: string;
	readonly help: string;
	/** A flag of buildx that Slipway does not have yet: using it is an error that says this. */
	readonly missing?: string;
	/** The one thing that a missing flag may say: that what it is for is not wanted. */
	readonly mayBeFalse?: boolean;
}

export interface ParsedFlags {
	readonly args: readonly string[];
	bool(name: string): boolean;
	/** The last one given. */
	string(name: string): string | undefined;
	list(name: string): readonly string[];
	given(name: string): boolean;
}

/** Throws `invalid-argument` naming the flag. */
export function parseFlags(
	argv: readonly string[],
	specs: readonly FlagSpec[],
	/** Leave all that follows the first argument to somebody else. */
	{ untilArgument = false }: { readonly untilArgument?: boolean } = {},
): ParsedFlags {
	const args: string[] = [];
	const values = new Map<string, string[]>();
	const queue = [...argv];
	for (let word = queue.shift(); word !== undefined; word = queue.shift()) {
		if (word === "--") {
			args.push(...queue);
			break;
		}
		if (word === "-" || !word.startsWith("-")) {
			args.push(word);
			if (untilArgument) {
				args.push(...queue);
				break;
			}
			continue;
		}
		const { spec, text, rest } = splitFlag(word, specs);
		if (rest !== undefined) {
			queue.unshift(rest);
		}
		if (spec.missing !== undefined) {
			if (spec.mayBeFalse && isFalse(text ?? queue[0] ?? "")) {
				if (text === undefined) {
					queue.shift();
				}
				continue;
			}
			throw new SlipwayError("unimplemented", `flag --${spec.name} is not supported yet: ${spec.missing}`);
		}
		const list = values.get(spec.name) ?? [];
		values.set(spec.name, list);
		if (spec.kind === "bool") {
			list.push(parseBool(spec.name, text ?? "true"));
		} else {
			const value = text ?? spec.bare ?? queue.shift();
			if (value === undefined) {
				throw new SlipwayError("invalid-argument", `flag needs an argument: --${spec.name}`);
			}
			list.push(value);
		}
	}
	return {
		args,
		bool: (name) => values.get(name)?.at(-1) === "true",
		string: (name) => values.get(name)?.at(-1),
		list: (name) => values.get(name) ?? [],
		given: (name) => values.has(name),
	};
}

interface SplitFlag {
	readonly spec: FlagSpec;
	readonly text: string | undefined;
	/** More short flags that stood in the same word. */
	readonly rest: string | undefined;
}

function splitFlag(word: string, specs: readonly FlagSpec[]): SplitFlag {
	if (word.startsWith("--")) {
		const equals = word.indexOf("=");
		const name = word.slice(2, equals === -1 ? undefined : equals);
		const spec = specs.find((each) => each.name === name);
		if (spec === undefined) {
			throw new SlipwayError("invalid-argument", `unknown flag: --${name}`);
		}
		return { spec, text: equals === -1 ? undefined : word.slice(equals + 1), rest: undefined };
	}
	const letter = word.slice(1, 2);
	const spec = specs.find((each) => each.short === letter);
	if (spec === undefined) {
		throw new SlipwayError("invalid-argument", `unknown shorthand flag: '${letter}' in ${word}`);
	}
	const tail = word.slice(2);
	if (tail === "") {
		return { spec, text: undefined, rest: undefined };
	}
	if (tail.startsWith("=")) {
		return { spec, text: tail.slice(1), rest: undefined };
	}
	return spec.kind === "bool"
		? { spec, text: undefined, rest: `-${tail}` }
		: { spec, text: tail, rest: undefined };
}

/** Go's booleans. */
export function parseBool(name: string, text: string): "true" | "false" {
	if (["1", "t", "T", "true", "TRUE", "True"].includes(text)) {
		return "true";
	}
	if (isFalse(text)) {
		return "false";
	}
	throw new SlipwayError(
		"invalid-argument",
		`invalid argument ${JSON.stringify(text)} for "--${name}" flag: expected true or false`,
	);
}

function isFalse(text: string): boolean {
	return ["0", "f", "F", "false", "FALSE", "False"].includes(text);
}

/** Lines of help for flags that exist, aligned. */
export function helpLines(specs: readonly FlagSpec[]): readonly string[] {
	const rows = specs
		.filter((spec) => spec.missing === undefined)
		.map((spec) => {
			const short = spec.short === undefined ? "    " : `-${spec.short}, `;
			const name = spec.value ?? "string";
			const value = spec.kind === "bool" ? "" : spec.bare === undefined ? ` ${name}` : `[=${name}]`;
			return [`  ${short}--${spec.name}${value}`, spec.help] as const;
		});
	const width = Math.max(...rows.map(([flag]) => flag.length)) + 3;
	return rows.map(([flag, help]) => `${flag.padEnd(width)}${help}`);
}

/**
 * `a=1,b="x,y"` as key and value pairs, in the CSV of Go's encoding/csv: a field in double quotes may have commas, two
 * quotes in it are one. A field without `=` has an undefined value.
 */
export function parseCsvPairs(text: string): readonly (readonly [key: string, value: string | undefined])[] {
	return csvFields(text).map((field) => {
		const equals = field.indexOf("=");
		return equals === -1
			? ([field.trim(), undefined] as const)
			: ([field.slice(0, equals).trim(), field.slice(equals + 1)] as const);
	});
}

/** `type=T` and other `key=value` fields, keys in lower case; the type is empty if none is given. Throws `invalid-argument`. */
export function parseTypeAndAttrs(fields: readonly string[]): {
	readonly type: string;
	readonly attrs: Readonly<Record<string, string>>;
} {
	const attrs: Record<string, string> = {};
	let type = "";
	for (const field of fields) {
		const equals = field.indexOf("=");
		if (equals === -1) {
			throw new SlipwayError("invalid-argument", `invalid value ${field}`);
		}
		const key = field.slice(0, equals).trim().toLowerCase();
		const value = field.slice(equals + 1);
		if (key === "type") {
			type = value;
		} else {
			attrs[key] = value;
		}
	}
	return { type, attrs };
}
