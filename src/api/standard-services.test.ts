import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { startServer } from "./connection.fixture.ts";
import type { ServerReflectionRequest, ServerReflectionResponse } from "./generated/reflection.ts";
import { serve } from "./grpc-server.ts";
import { createHealth } from "./health.ts";
import { reflectionMethods } from "./reflection.ts";
import { control } from "./services/control.ts";
import { health } from "./services/health.ts";
import { reflection, reflectionAlpha } from "./services/reflection.ts";

const signal = new AbortController().signal;

describe("health", () => {
	test("check and list", async () => {
		const state = createHealth();
		state.set("a", "not-serving");
		await using served = await startServer(state.methods);
		const check = (service: string) => served.channel.unary(health.check, { service }, { signal });
		assert.deepEqual(await check(""), { status: 1 });
		assert.deepEqual(await check("a"), { status: 2 });
		await assert.rejects(check("b"), { code: "not-found", message: "unknown service" });
		const { statuses } = await served.channel.unary(health.list, {}, { signal });
		assert.deepEqual(
			[...statuses],
			[
				["", { status: 1 }],
				["a", { status: 2 }],
			],
		);
	});

	test("watch tells each change once, until its caller leaves", async () => {
		const state = createHealth();
		await using served = await startServer(state.methods);
		const stream = served.channel.stream(health.watch, { signal });
		void stream.send({ service: "a" });
		stream.closeSend();
		const statuses = stream[Symbol.asyncIterator]();
		const next = async () => (await statuses.next()).value?.status;
		assert.equal(await next(), 3);
		state.set("a", "serving");
		assert.equal(await next(), 1);
		state.set("a", "serving");
		state.shutDown();
		assert.equal(await next(), 2);
		state.set("a", "serving");
		stream.cancel();
		await assert.rejects(next, { code: "canceled" });
	});
});

describe("reflection", () => {
	test("services, files with what they import, symbols, and what is not there, in both versions", async () => {
		for (const { serverReflectionInfo } of [reflection, reflectionAlpha]) {
			const methods = [serve(control.info, async () => ({ buildkitVersion: undefined }))];
			await using served = await startServer(reflectionMethods(methods));
			const stream = served.channel.stream(serverReflectionInfo, { signal });
			const answers = stream[Symbol.asyncIterator]();
			type Answer = ServerReflectionResponse["messageResponse"];
			const ask = async (messageRequest: ServerReflectionRequest["messageRequest"]): Promise<Answer> => {
				await stream.send({ host: "h", messageRequest });
				const next = await answers.next();
				assert.ok(!next.done);
				assert.equal(next.value.validHost, "h");
				return next.value.messageResponse;
			};
			const list = await ask({ $case: "listServices", value: "" });
			assert.deepEqual(list?.$case === "listServicesResponse" && list.value.service.map(({ name }) => name), [
				"grpc.reflection.v1.ServerReflection",
				"grpc.reflection.v1alpha.ServerReflection",
				"moby.buildkit.v1.Control",
			]);
			const files = async (value: string) => {
				const answer = await ask({ $case: "fileContainingSymbol", value });
				return answer?.$case === "fileDescriptorResponse" ? answer.value.fileDescriptorProto.length : answer;
			};
			assert.equal(await files("moby.buildkit.v1.Control"), 7);
			// The rest of what it imports has been sent.
			assert.equal(await files("moby.buildkit.v1.frontend.LLBBridge.Solve"), 3);
			assert.equal(await files("pb.ExecOp.meta"), 1);
			assert.equal(await files("opentelemetry.proto.trace.v1.Span.SPAN_KIND_SERVER"), 3);
			const missing = { $case: "errorResponse", value: { errorCode: 5, errorMessage: "not found" } };
			assert.deepEqual(await files("no.Thing"), missing);
			assert.deepEqual(await ask({ $case: "fileByFilename", value: "no.proto" }), missing);
			const extensions = await ask({ $case: "allExtensionNumbersOfType", value: "pb.Op" });
			assert.equal(extensions?.$case, "allExtensionNumbersResponse");
			const extension = { containingType: "pb.Op", extensionNumber: 5 };
			assert.deepEqual(await ask({ $case: "fileContainingExtension", value: extension }), missing);
			await assert.rejects(() => ask(undefined), { code: "invalid-argument" });
		}
	});
});
