import assert from "node:assert/strict";
import { test } from "node:test";
import { childOf } from "../api/trace-context.ts";
import { createTracing } from "../api/tracing.ts";
import type { Digest } from "../oci/digest.ts";
import type { VertexRecord } from "../progress/progress.ts";
import { traceBuild } from "./build-trace.ts";

interface Stub {
	readonly Name: string;
	readonly SpanContext: { readonly TraceID: string; readonly SpanID: string };
	readonly Parent: { readonly SpanID: string };
	readonly StartTime: string;
	readonly EndTime: string;
	readonly Status: { readonly Code: number; readonly Description: string };
}

test("traceBuild: one span for each run of a step, below the build's, below the client's", () => {
	const tracing = createTracing({ resource: {}, scope: { name: "t", version: "1" } });
	const parent = childOf(undefined);
	const trace = traceBuild(tracing, { parent, ref: "r" });
	const digest = (index: number): Digest => `sha256:${`${index}`.repeat(64)}` as Digest;
	const vertex = (index: number, more: Partial<VertexRecord>): void =>
		trace.write({
			kind: "vertex",
			vertex: { digest: digest(index), inputs: [], name: `step ${index}`, cached: false, ...more },
		});
	vertex(1, {});
	vertex(1, { started: 1000 });
	vertex(1, { started: 1000, completed: 2000 });
	vertex(1, { started: 1000, completed: 2000 });
	vertex(2, { started: 1500, completed: 1500, cached: true });
	vertex(3, { started: 1600, completed: 1700, error: "failed" });
	vertex(1, { started: 3000, completed: 3500 });
	vertex(4, { started: 4000 });
	trace.end("build failed");
	const stubs = trace
		.take()
		.trim()
		.split("\n")
		.map((text) => JSON.parse(text) as Stub);
	assert.deepEqual(
		stubs.map(({ Name, Status }) => [Name, Status.Description]),
		[
			["step 1", ""],
			["cache request: step 2", ""],
			["step 3", "failed"],
			["step 1", ""],
			["step 4", "context canceled"],
			["moby.buildkit.v1.Control/Solve", "build failed"],
		],
	);
	assert.ok(stubs.every(({ SpanContext }) => SpanContext.TraceID === parent.traceId));
	const build = stubs.at(-1);
	assert.equal(build?.Parent.SpanID, parent.spanId);
	assert.ok(stubs.slice(0, -1).every(({ Parent }) => Parent.SpanID === build?.SpanContext.SpanID));
	assert.deepEqual(
		[stubs[0]?.StartTime, stubs[0]?.EndTime],
		["1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z"],
	);
});
