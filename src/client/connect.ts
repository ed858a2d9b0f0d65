import type { Duplex } from "node:stream";
import type { PruneRequest as PruneMessage } from "../api/generated/control.ts";
import type { Channel, ClientStream } from "../api/grpc.ts";
import { openChannel } from "../api/grpc-client.ts";
import { content } from "../api/services/content.ts";
import { control } from "../api/services/control.ts";
import type { ProgressSink } from "../progress/progress.ts";
import type { Client } from "./client.ts";
import type { CommandTrace } from "./command-trace.ts";
import { type DialOptions, dial } from "./dial.ts";
import { builderVersion, historyEvent, usageRecord, workerInfo } from "./records.ts";
import { solve } from "./solve.ts";
import { statusEvents } from "./status-events.ts";

/** A client of the builder at an address; see `dial` for its forms. */
export async function connectClient(address: string, options: DialOptions & ClientOptions): Promise<Client> {
	return clientOn(await dial(address, options), options);
}

export interface ClientOptions {
	/** What the calls are a part of. */
	readonly trace?: CommandTrace | undefined;
}

/** A client on a connection that is open. It takes the connection over. */
export function clientOn(connection: Duplex, { trace }: ClientOptions = {}): Client {
	const plain = openChannel(connection);
	const channel = trace?.traced(plain) ?? plain;
	return {
		closed: channel.closed,
		solve: (request, options) => solve(channel, request, options),
		async info({ signal }) {
			const { buildkitVersion } = await channel.unary(control.info, {}, { signal });
			return { version: builderVersion(buildkitVersion) };
		},
		async workers(filters, { signal }) {
			const { record } = await channel.unary(control.listWorkers, { filter: filters }, { signal });
			return record.map(workerInfo);
		},
		async diskUsage(filters, { signal }) {
			const request = { filter: filters, ageLimit: "0" };
			const { record } = await channel.unary(control.diskUsage, request, { signal });
			// BuildKit's order, which is that of its client.
			return record.map(usageRecord).sort((a, b) => a.size - b.size || (a.id < b.id ? -1 : 1));
		},
		async *prune(request, { signal }) {
			const message: PruneMessage = {
				filter: request.filters ?? [],
				all: request.all ?? false,
				keepDuration: String(request.keepDuration ?? 0n),
				reservedSpace: request.reservedSpace ?? 0,
				maxUsedSpace: request.maxUsedSpace ?? 0,
				minFreeSpace: request.minFreeSpace ?? 0,
			};
			for await (const record of answers(channel.stream(control.prune, { signal }), message)) {
				yield usageRecord(record);
			}
		},
		async *history(request, { signal }) {
			const message = {
				ActiveOnly: request.activeOnly ?? false,
				Ref: request.ref ?? "",
				EarlyExit: request.earlyExit ?? false,
				Filter: request.filters ?? [],
				Limit: request.limit ?? 0,
			};
			for await (const each of answers(channel.stream(control.listenBuildHistory, { signal }), message)) {
				const event = historyEvent(each);
				if (event !== undefined) {
					yield event;
				}
			}
		},
		async updateHistory(update, { signal }) {
			const message = {
				Ref: update.ref,
				Pinned: update.pinned ?? false,
				Delete: update.delete ?? false,
				Finalize: false,
			};
			await channel.unary(control.updateBuildHistory, message, { signal });
		},
		status: (ref, progress, { signal }) => followStatus(channel, ref, progress, signal),
		async *readBlob(digest, { signal }) {
			const request = { digest, offset: 0, size: 0 };
			for await (const { data } of answers(channel.stream(content.read, { signal }), request)) {
				yield data;
			}
		},
		async [Symbol.asyncDispose]() {
			await trace?.deliver(plain);
			await plain[Symbol.asyncDispose]();
		},
	};
}

/** Sends what a builder says of a build to `progress`, until the builder has no more to say. */
export async function followStatus(
	channel: Channel,
	ref: string,
	progress: ProgressSink,
	signal: AbortSignal,
): Promise<void> {
	for await (const response of answers(channel.stream(control.status, { signal }), { Ref: ref })) {
		for (const event of statusEvents(response)) {
			progress.write(event);
		}
	}
}

/** Of a method with one request and many responses. Leaving the loop cancels the call. */
async function* answers<Request, Response>(
	stream: ClientStream<Response, Request>,
	request: Request,
): AsyncGenerator<Response> {
	try {
		await stream.send(request);
		stream.closeSend();
		yield* stream;
	} finally {
		stream.cancel();
	}
}
