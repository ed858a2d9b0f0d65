import { SlipwayError } from "../../errors/errors.ts";
import { toLower } from "./go-text.ts";
import { withSuggestion } from "./suggest.ts";

/** What a `--flag` takes: a boolean, one text, or any number of texts. */
export type FlagType = "bool" | "text" | "list";

export type FlagTypes = Readonly<Record<string, FlagType>>;

type FlagValue<Type extends FlagType> = Type extends "bool"
	? boolean
	: Type extends "text"
		? string
		: readonly string[];

/** Only what was given is there. */
export type FlagValues<Types extends FlagTypes> = { readonly [Name in keyof Types]?: FlagValue<Types[Name]> };

/** Reads the flags of an instruction. Throws `invalid-argument` for the first that is wrong, with BuildKit's text. */
export function parseFlags<const Types extends FlagTypes>(
	flags: readonly string[],
	types: Types,
): FlagValues<Types> {
	const values = new Map<string, boolean | string | string[]>();
	for (const flag of flags) {
		if (flag === "--") {
			break;
		}
		if (!flag.startsWith("--")) {
			throw invalid(`arg should start with -- : ${flag}`);
		}
		const equals = flag.indexOf("=");
		const written = equals < 0 ? flag : flag.slice(0, equals);
		const value = equals < 0 ? undefined : flag.slice(equals + 1);
		const name = written.slice(2);
		const type = Object.hasOwn(types, name) ? types[name] : undefined;
		if (type === undefined) {
			throw invalid(withSuggestion(`unknown flag: ${written}`, name, Object.keys(types)));
		}
		const earlier = values.get(name);
		if (earlier !== undefined && type !== "list") {
			throw invalid(`duplicate flag specified: ${written}`);
		}
		if (type === "bool") {
			values.set(name, parseBool(written, value));
		} else if (value === undefined) {
			throw invalid(`missing a value on flag: ${written}`);
		} else if (type === "text") {
			values.set(name, value);
		} else if (Array.isArray(earlier)) {
			earlier.push(value);
		} else {
			values.set(name, [value]);
		}
	}
	return Object.fromEntries(values) as FlagValues<Types>;
}

function parseBool(written: string, value: string | undefined): boolean {
	if (value === "") {
		throw invalid(`missing a value on flag: ${written}`);
	}
	switch (toLower(value ?? "true")) {
		case "true":
			return true;
		case "false":
			return false;
		default:
			throw invalid(`expecting boolean value for flag ${written}, not: ${value}`);
	}
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
