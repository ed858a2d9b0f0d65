import { SlipwayError, toError } from "../../errors/errors.ts";
import { parseGoDuration } from "../../oci/go-duration.ts";
import { type FlagSpec, type ParsedFlags, parseFlags } from "../flags.ts";
import type { Terminal } from "../terminal.ts";

/** As `parseFlags`. What is wrong with the command line is also said at once, in the words of BuildKit's client. */
export function parseArguments(
	argv: readonly string[],
	specs: readonly FlagSpec[],
	{ terminal, ...options }: { readonly terminal: Pick<Terminal, "stderr">; readonly untilArgument?: boolean },
): ParsedFlags {
	try {
		const flags = parseFlags(argv, specs, options);
		checkValues(flags);
		return flags;
	} catch (thrown) {
		const error = toError(thrown);
		const message = translated(error.message);
		terminal.stderr.write(`Incorrect Usage: ${message}\n\n`);
		throw new SlipwayError(error.code, message, { cause: error });
	}
}

function checkValues(flags: ParsedFlags): void {
	for (const [name, check] of Object.entries(checks)) {
		const value = flags.string(name);
		const wrong = value === undefined ? undefined : check(value);
		if (wrong !== undefined) {
			throw new SlipwayError(
				"invalid-argument",
				`invalid value ${JSON.stringify(value)} for flag -${name}: ${wrong}`,
			);
		}
	}
}

function translated(message: string): string {
	return message
		.replace(/^unknown flag: --/, "flag provided but not defined: -")
		.replace(/^unknown shorthand flag: '(.)' in .*$/, "flag provided but not defined: -$1")
		.replace(
			/^invalid argument (".*") for "--(.*)" flag: .*$/s,
			"invalid value $1 for flag -$2: parse error",
		);
}

/** Of flags whose value is no text: what is wrong with one. */
const checks: Readonly<Record<string, (value: string) => string | undefined>> = {
	timeout: (value) =>
		/^[+-]?\d+$/.test(value)
			? undefined
			: `strconv.ParseInt: parsing ${JSON.stringify(value)}: invalid syntax`,
	"keep-duration": (value) => {
		try {
			parseGoDuration(value);
			return undefined;
		} catch (thrown) {
			return (thrown as Error).message;
		}
	},
	"keep-storage": wrongNumber,
	"keep-storage-min": wrongNumber,
	"free-storage": wrongNumber,
};

function wrongNumber(value: string): string | undefined {
	return value.trim() === value && value !== "" && Number.isFinite(Number(value))
		? undefined
		: `strconv.ParseFloat: parsing ${JSON.stringify(value)}: invalid syntax`;
}
