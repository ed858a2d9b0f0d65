import assert from "node:assert/strict";
import { test } from "node:test";
import { sha256 } from "../oci/digest.ts";
import { type StepTrace, traceAccess } from "./step-trace.ts";

const vertex = sha256("step");
const trace: StepTrace = {
	socketPath: "/run/s.sock",
	environment: (digest) => [`TRACEPARENT=00-${digest.slice(-8)}`],
};

test("traceAccess: socket and variables; those that the step has already stay", () => {
	assert.deepEqual(traceAccess(undefined, vertex, ["A=b"]), { env: ["A=b"], mounts: [] });
	const { env, mounts } = traceAccess(trace, vertex, ["A=b", "OTEL_TRACES_EXPORTER=none"]);
	assert.deepEqual(env, [
		"A=b",
		"OTEL_TRACES_EXPORTER=none",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=unix:///dev/otel-grpc.sock",
		"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc",
		`TRACEPARENT=00-${vertex.slice(-8)}`,
	]);
	assert.deepEqual(
		mounts.map(({ target, readonly, source }) => [target, readonly, source.kind]),
		[["/dev/otel-grpc.sock", true, "host"]],
	);
});
