import type {
	BuildHistoryEvent,
	BuildHistoryRequest,
	UpdateBuildHistoryRequest,
} from "../api/generated/control.ts";
import type { MessageStream, ServerCall } from "../api/grpc.ts";
import type { History } from "./history.ts";
import { sendTime } from "./service-status.ts";

export async function listenHistory(
	history: History,
	request: BuildHistoryRequest,
	stream: Pick<MessageStream<never, BuildHistoryEvent>, "send">,
	call: ServerCall,
): Promise<void> {
	sendTime(call);
	for await (const event of history.listen(request, { signal: call.signal })) {
		await stream.send(event);
	}
}

export async function updateHistory(history: History, request: UpdateBuildHistoryRequest): Promise<void> {
	const { Ref: ref } = request;
	if (request.Delete) {
		await history.finalize(ref);
		await history.delete(ref);
	} else if (request.Finalize) {
		await history.finalize(ref);
	} else {
		await history.update(ref, { pinned: request.Pinned });
	}
}
