import assert from "node:assert/strict";
import { test } from "node:test";
import { startServer } from "./connection.fixture.ts";
import type { Metadata } from "./grpc.ts";
import { serve } from "./grpc-server.ts";
import { control } from "./services/control.ts";
import { tracedChannel } from "./traced-channel.ts";

test("tracedChannel: calls are below the span of the metadata; without one the channel is as it was", async () => {
	const seen: Metadata[] = [];
	await using served = await startServer([
		serve(control.info, async (_request, { metadata }) => {
			seen.push(metadata);
			return { buildkitVersion: undefined };
		}),
		serve(control.session, async (_stream, { metadata }) => {
			seen.push(metadata);
		}),
	]);
	const { signal } = new AbortController();
	const traceparent = ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"];
	const channel = tracedChannel(served.channel, { traceparent, other: ["x"] });
	await channel.unary(control.info, {}, { signal, metadata: { key: ["value"] } });
	const stream = channel.stream(control.session, { signal });
	stream.closeSend();
	for await (const _message of stream) {
		assert.fail("nothing is sent");
	}
	assert.deepEqual({ ...seen[0] }, { "user-agent": ["slipway"], traceparent, key: ["value"] });
	assert.deepEqual({ ...seen[1] }, { "user-agent": ["slipway"], traceparent });
	assert.equal(tracedChannel(served.channel, { traceparent: ["none"] }), served.channel);
});
