import { Op as OpMessage } from "../../api/generated/ops.ts";
import { type ErrorDetail, findDetail } from "../../errors/errors.ts";
import type { Definition } from "../../llb/llb.ts";
import { toPlatformMessage } from "../../llb/op-message.ts";
import { hostPlatform } from "../../oci/platform.ts";
import { messageJson } from "../dockerfile/proto-json.ts";
import { errorDetails } from "../error-details.ts";
import type { FailedPart, FailedStep, FrontendBridge } from "../frontend.ts";
import type { GatewayRefs } from "./gateway-refs.ts";
import { goJsonValue } from "./go-json-value.ts";

/** What an error of a graph leaves to look at: the step that failed and, if it was a process, its trees. */
export function solveState(
	error: unknown,
	{
		bridge,
		refs,
		graph,
	}: {
		readonly bridge: FrontendBridge;
		readonly refs: GatewayRefs;
		readonly graph: Definition | undefined;
	},
): ErrorDetail {
	const step = bridge.failedStep(error) ?? stepOf(error, graph);
	if (step === undefined) {
		return errorDetails.solve({});
	}
	const { inputs, mounts, op, description, subject } = step;
	return errorDetails.solve({
		...(inputs.length === 0 ? {} : { inputIDs: refs.failedIds(inputs) }),
		...(mounts.length === 0 ? {} : { mountIDs: refs.failedIds(mounts) }),
		...(op === undefined ? {} : { op: opJson(op) }),
		...(subject === undefined ? {} : { [subject.kind === "action" ? "file" : "cache"]: indexJson(subject) }),
		...(description.size === 0 ? {} : { description: Object.fromEntries(description) }),
	});
}

/** As protobuf's JSON has 64-bit numbers. */
function indexJson({ index }: FailedPart): { readonly index?: string } {
	return index === 0 ? {} : { index: String(index) };
}

/** With the platform that it was run for where it says none. A client may have sent anything. */
function opJson(op: Uint8Array): unknown {
	try {
		const message = OpMessage.decode(op);
		const { platform = toPlatformMessage(hostPlatform()) } = message;
		return goJsonValue(messageJson({ ...message, platform }));
	} catch {
		return undefined;
	}
}

/** Of the graph alone. */
function stepOf(error: unknown, graph: Definition | undefined): FailedStep | undefined {
	const digest = findDetail(error, "vertex")?.digest;
	const op = graph?.ops.find((each) => each.digest === digest);
	return op === undefined
		? undefined
		: {
				op: op.bytes,
				description: graph?.metadata.get(op.digest)?.description ?? new Map(),
				inputs: [],
				mounts: [],
			};
}
