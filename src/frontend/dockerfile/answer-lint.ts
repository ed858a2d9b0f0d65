import { type SlipwayError, type SourceFile, type SourceRange, toError } from "../../errors/errors.ts";
import { toDefinitionMessage } from "../../llb/definition-message.ts";
import type { Definition } from "../../llb/llb.ts";
import { definitionJson } from "../../llb/op-json.ts";
import { formatSourceExcerpt } from "../../progress/source-excerpt.ts";
import { completeSource } from "./answer-convert.ts";
import { type Answer, answerJson, locationJson } from "./answers.ts";
import type { LintWarning } from "./linter.ts";

export interface LintFindings {
	readonly file: SourceFile;
	/** How the file was got. */
	readonly definition: Definition;
	readonly warnings: readonly LintWarning[];
	/** What would fail a build, after the warnings. */
	readonly error: unknown;
}

/** `frontend.lint`: all warnings, and the error that ended the search if one did. */
export function answerLint({ file, definition, warnings, error }: LintFindings): Answer {
	const failure = error === undefined ? undefined : toError(error);
	const json = answerJson({
		warnings: warnings.length === 0 ? null : warnings.map(warningJson),
		sources: [
			{
				filename: file.filename,
				// As protobuf's JSON leaves out what is empty.
				data: file.data.length === 0 ? undefined : file.data,
				definition: definitionJson({
					...toDefinitionMessage(definition),
					Source: completeSource(definition),
				}),
				language: file.language,
			},
		],
		buildError:
			failure === undefined
				? undefined
				: { message: failure.message, location: locationJson(mergeRanges(placesOf(failure))) },
	});
	const line = ({ ranges }: LintWarning): number => ranges[0]?.start.line ?? 0;
	const sorted = warnings.toSorted((a, b) => line(a) - line(b));
	const text = sorted.map(({ rule, url, message, ranges }) => {
		const link = url === "" ? "" : ` - ${url}`;
		return `\nWARNING: ${rule}${link}\n${message}\n${formatSourceExcerpt({ kind: "source", file, ranges })}`;
	});
	const clean = warnings.length === 0 && failure === undefined;
	return {
		json,
		text: text.join(""),
		version: "1.0.0",
		more: { "result.statuscode": clean ? "0" : "1" },
	};
}

function warningJson({ rule, description, url, message, ranges }: LintWarning): object {
	return {
		ruleName: rule,
		description: description === "" ? undefined : description,
		url: url === "" ? undefined : url,
		detail: message === "" ? undefined : message,
		location: locationJson(ranges),
	};
}

function placesOf({ details }: SlipwayError): readonly SourceRange[] {
	return details.flatMap((detail) => (detail.kind === "source" ? detail.ranges : []));
}

/** Ranges that overlap become one; what only touches stays apart. */
function mergeRanges(ranges: readonly SourceRange[]): readonly SourceRange[] {
	const merged: SourceRange[] = [];
	for (const range of ranges.toSorted((a, b) => a.start.line - b.start.line)) {
		const last = merged.at(-1);
		if (last === undefined || range.start.line > last.end.line) {
			merged.push(range);
		} else if (range.end.line > last.end.line) {
			const end = { ...last.end, line: range.end.line };
			merged[merged.length - 1] = { ...last, end };
		}
	}
	return merged;
}
