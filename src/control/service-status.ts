import type { StatusRequest } from "../api/generated/control.ts";
import type { MessageStream, ServerCall } from "../api/grpc.ts";
import { formatGoTime } from "../oci/go-time.ts";
import { progressTime } from "../progress/progress.ts";
import type { History } from "./history.ts";
import type { Builds } from "./service-builds.ts";

/**
 * A build's progress from its beginning: of one that runs until it ends, of one that ended from the history. A client that does not
 * read holds up nothing but its own call.
 */
export async function streamStatus(
	{ builds, history }: { readonly builds: Builds; readonly history: History },
	{ Ref: ref }: StatusRequest,
	stream: Pick<MessageStream<never, Uint8Array>, "send">,
	call: ServerCall,
): Promise<void> {
	sendTime(call);
	const { signal } = call;
	const record = history.find(ref);
	const messages =
		record === undefined
			? (await builds.find(ref, { signal })).read(signal)
			: history.readLog(record, { signal });
	for await (const message of messages) {
		await stream.send(message);
	}
}

/** Clients compute with the builder's clock. */
export function sendTime(call: ServerCall): void {
	call.sendHeaders({ "buildkit-current-timestamp": [formatGoTime(progressTime())] });
}
