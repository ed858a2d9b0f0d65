import { Op } from "../../api/generated/ops.ts";
import { toDefinitionMessage } from "../../llb/definition-message.ts";
import type { Definition } from "../../llb/llb.ts";
import { definitionJson } from "../../llb/op-json.ts";
import { type Answer, answerJson } from "./answers.ts";
import { messageJson } from "./proto-json.ts";

/** `frontend.convertllb`: the graph that a build would solve. */
export function answerConvert(definition: Definition): Answer {
	const message = toDefinitionMessage(definition);
	const metadata = definitionJson({ def: [], metadata: message.metadata, Source: undefined });
	const json = answerJson({
		def: new Map(definition.ops.map(({ digest, bytes }) => [digest, messageJson(Op.decode(bytes))])),
		metadata: "metadata" in metadata ? metadata.metadata : {},
		source: messageJson(completeSource(definition)),
	});
	return { json, version: "0.1.0" };
}

/** BuildKit's client has an entry for every op, also those that come from no file. */
export function completeSource(
	definition: Definition,
): NonNullable<ReturnType<typeof toDefinitionMessage>["Source"]> {
	const { Source: source } = toDefinitionMessage(definition);
	const locations = new Map(
		definition.ops
			.slice(0, -1)
			.map(({ digest }) => [digest as string, source?.locations.get(digest) ?? { locations: [] }]),
	);
	return { infos: source?.infos ?? [], locations };
}
