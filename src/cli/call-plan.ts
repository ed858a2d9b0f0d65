import { join } from "node:path";
import { SlipwayError } from "../errors/errors.ts";
import { csvFields } from "../oci/csv-fields.ts";
import { formatSourceExcerpt } from "../progress/source-excerpt.ts";
import { isRemoteContext } from "../session/context.ts";
import { type ParsedFlags, parseBool } from "./flags.ts";
import type { Output } from "./terminal.ts";

/** A question to the frontend instead of a build. */
export interface Call {
	/** As in `frontend.<name>`. */
	readonly name: string;
	readonly format: "text" | "json";
	/** The exit code is 0 whatever the answer is. */
	readonly ignoreStatus: boolean;
	/** What a check calls the Dockerfile: a path that a terminal makes a link of. Undefined: as the frontend does. */
	readonly shownAs?: string;
}

/**
 * `--call name[,format=text|json][,ignorestatus=bool]`, its old name `--print`, and `--check` for `--call check`. Undefined
 * for `build` and where nothing is asked.
 */
export function planCall(flags: ParsedFlags): Call | undefined {
	const text = flags.string("call") ?? flags.string("print");
	const shownAs = shownDockerfile(flags);
	if (!flags.bool("check")) {
		const call = text === undefined ? undefined : parseCall(text);
		return call === undefined ? undefined : { ...call, ...shownAs };
	}
	if (text !== undefined && text !== "build" && text !== "check" && text !== "lint") {
		throw new SlipwayError("invalid-argument", `--check and --call ${text} can't be used together`);
	}
	return { name: "lint", format: "text", ignoreStatus: false, ...shownAs };
}

function shownDockerfile(flags: ParsedFlags): Pick<Call, "shownAs"> {
	const [context = ""] = flags.args;
	const file = flags.string("file");
	if (file === "-" || (file === undefined && context === "-")) {
		return { shownAs: "stdin" };
	}
	if (file !== undefined) {
		return { shownAs: file };
	}
	return isRemoteContext(context) ? {} : { shownAs: join(context, "Dockerfile") };
}

function parseCall(text: string): Call | undefined {
	let name: string | undefined;
	let format: Call["format"] = "text";
	let ignoreStatus = false;
	for (const field of text === "" ? [] : csvFields(text)) {
		const equals = field.indexOf("=");
		const value = field.slice(equals + 1);
		if (equals === -1) {
			if (name !== undefined) {
				throw new SlipwayError("invalid-argument", `invalid print value: ${text}`);
			}
			name = field;
		} else if (field.startsWith("format=")) {
			if (value !== "text" && value !== "json" && value !== "") {
				throw new SlipwayError("invalid-argument", `invalid format ${value} in --call ${text}: text or json`);
			}
			format = value === "json" ? "json" : "text";
		} else if (field.startsWith("ignorestatus=")) {
			ignoreStatus = parseBool("call", value) === "true";
		} else {
			throw new SlipwayError("invalid-argument", `invalid print field: ${field}`);
		}
	}
	if (name === undefined || name === "" || name === "build") {
		return undefined;
	}
	return { name: name === "check" ? "lint" : name, format, ignoreStatus };
}

/**
 * Prints the answer as buildx does and gives the exit code. Throws for a Dockerfile that a check has found to be in error,
 * after its warnings are printed.
 */
export function printAnswer(
	call: Call,
	metadata: Readonly<Record<string, Uint8Array>>,
	stdout: Output,
): number {
	const decoder = new TextDecoder();
	const read = (name: string): string => decoder.decode(metadata[name]);
	const json = read("result.json");
	const isText = call.format === "text" && metadata["result.txt"] !== undefined;
	const findings = call.name === "lint" ? parseFindings(json, call.shownAs) : undefined;
	if (!isText) {
		stdout.write(`${json}\n`);
	} else if (findings === undefined) {
		stdout.write(read("result.txt"));
	} else {
		stdout.write(summary(findings) + renamed(read("result.txt"), findings.filename, call.shownAs));
	}
	if (findings?.buildError !== undefined) {
		if (isText && findings.warnings > 0) {
			stdout.write("\n");
		}
		throw new SlipwayError("invalid-argument", findings.buildError);
	}
	const status = Number(read("result.statuscode"));
	return call.ignoreStatus || !Number.isInteger(status) ? 0 : status;
}

interface Findings {
	readonly warnings: number;
	/** The message with the place below it. */
	readonly buildError: string | undefined;
	/** As the frontend calls it. */
	readonly filename: string | undefined;
}

interface LintJson {
	readonly warnings?: readonly unknown[] | null;
	readonly sources?: readonly { readonly filename: string; readonly data: string }[];
	readonly buildError?: {
		readonly message: string;
		readonly location: { readonly ranges?: readonly RangeJson[] };
	};
}

interface RangeJson {
	readonly start?: { readonly line?: number };
	readonly end?: { readonly line?: number };
}

/** The heads of excerpts; what the file itself says stands behind a line number. */
function renamed(text: string, filename: string | undefined, shownAs: string | undefined): string {
	return filename === undefined || shownAs === undefined
		? text
		: text.replaceAll(/^(.+)(:\d+\n-{20}\n)/gm, (whole, name: string, rest: string) =>
				name === filename ? shownAs + rest : whole,
			);
}

function parseFindings(json: string, shownAs: string | undefined): Findings {
	const { warnings, sources, buildError } = JSON.parse(json) as LintJson;
	return {
		warnings: warnings?.length ?? 0,
		filename: sources?.[0]?.filename,
		buildError:
			buildError === undefined
				? undefined
				: `${buildError.message}\n${excerpt(sources?.[0], { ranges: buildError.location.ranges ?? [], shownAs })}`,
	};
}

function excerpt(
	source: NonNullable<LintJson["sources"]>[number] | undefined,
	{ ranges, shownAs }: { readonly ranges: readonly RangeJson[]; readonly shownAs: string | undefined },
): string {
	if (source === undefined || ranges.length === 0) {
		return "";
	}
	return formatSourceExcerpt({
		kind: "source",
		file: { filename: shownAs ?? source.filename, data: Buffer.from(source.data, "base64") },
		ranges: ranges.map(({ start, end }) => ({
			start: { line: start?.line ?? 0, character: 0 },
			end: { line: end?.line ?? 0, character: 0 },
		})),
	});
}

function summary({ warnings, buildError }: Findings): string {
	if (warnings === 0) {
		return buildError === undefined ? "Check complete, no warnings found.\n" : "";
	}
	return warnings === 1
		? "Check complete, 1 warning has been found!\n"
		: `Check complete, ${warnings} warnings have been found!\n`;
}
