import type { SourceFile } from "../../errors/errors.ts";
import { type Answer, answerJson, locationJson } from "./answers.ts";
import { Linter } from "./linter.ts";
import { parseInstructions } from "./parse-instructions.ts";
import { parseDockerfile } from "./parser.ts";
import { formatTable } from "./tab-table.ts";

/** `frontend.targets`: the stages. */
export function answerTargets({ filename, data }: SourceFile): Answer {
	const { stages } = parseInstructions(parseDockerfile(data, { filename }), new Linter());
	const orNone = (text: string): string | undefined => (text === "" ? undefined : text);
	const targets = stages.map((stage, index) => ({
		name: orNone(stage.name),
		default: index === stages.length - 1 ? true : undefined,
		description: orNone(stage.description),
		base: orNone(stage.baseName),
		platform: orNone(stage.platform),
		location: stage.ranges.length === 0 ? undefined : locationJson(stage.ranges),
	}));
	const rows = targets.map(({ name = "", default: isDefault, description = "" }) => {
		const shown = isDefault === true ? (name === "" ? "(default)" : `${name} (default)`) : name;
		return [shown, description];
	});
	return {
		json: answerJson({ targets: targets.length === 0 ? null : targets, sources: [data] }),
		text: formatTable([["TARGET", "DESCRIPTION"], ...rows], 1),
		version: "1.0.0",
	};
}
