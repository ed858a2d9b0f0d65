import * as pb from "../api/generated/ops.ts";
import { SlipwayError } from "../errors/errors.ts";
import { messageOf } from "./definition-message.ts";
import type { Definition, LocatedFile, MarshalledOp, NodeOutput, Output, SourceLocation } from "./llb.ts";
import { fromPlatformMessage } from "./op-from-message.ts";
import { type DefinitionNode, outputOf } from "./ops.ts";

/**
 * The output that a definition is about, to build on: its ops go unchanged into the definition of what is built.
 * Undefined for an empty definition, which is scratch. Throws `invalid-argument` for a definition with no root or with
 * ops missing; all else is looked at by `load`.
 */
export function definitionOutput(definition: Definition): Output | undefined {
	const terminal = definition.ops.at(-1);
	if (terminal === undefined) {
		return undefined;
	}
	const files: readonly LocatedFile[] = (definition.source?.files ?? []).map(
		({ definition: own, ...file }) => {
			const output = own === undefined ? undefined : definitionOutput(own);
			return output === undefined ? file : { ...file, output };
		},
	);
	const nodes = new Map<string, { readonly node: DefinitionNode; readonly message: pb.Op }>();
	const toOutput = ({ digest, index }: pb.Input): NodeOutput => {
		const known = nodes.get(digest);
		if (known === undefined) {
			throw new SlipwayError("invalid-argument", `invalid missing input digest ${digest}`);
		}
		const { platform } = known.message;
		return outputOf(known.node, index, platform === undefined ? undefined : fromPlatformMessage(platform));
	};
	for (const op of definition.ops.slice(0, -1)) {
		const message = decode(op);
		const metadata = definition.metadata.get(op.digest);
		const node: DefinitionNode = {
			kind: "definition",
			op,
			...(metadata === undefined ? {} : { metadata }),
			// Inputs come before users in every definition that a client makes.
			inputs: message.inputs.map(toOutput),
			locations: locationsOf(op, definition, files),
			constraints: {},
		};
		nodes.set(op.digest, { node, message });
	}
	const [root] = decode(terminal).inputs;
	if (root === undefined) {
		throw new SlipwayError("invalid-argument", "invalid LLB with no inputs on last vertex");
	}
	return toOutput(root);
}

function decode({ digest, bytes }: MarshalledOp): pb.Op {
	try {
		return pb.Op.decode(bytes);
	} catch (error) {
		throw new SlipwayError("invalid-argument", `failed to parse llb proto op: ${messageOf(error)}`, {
			cause: error,
			details: [{ kind: "vertex", digest }],
		});
	}
}

function locationsOf(
	{ digest }: MarshalledOp,
	{ source }: Definition,
	files: readonly LocatedFile[],
): readonly SourceLocation[] {
	return (source?.locations.get(digest) ?? []).flatMap(({ file: index, ranges }) => {
		const file = files[index];
		return file === undefined ? [] : [{ file, ranges }];
	});
}
