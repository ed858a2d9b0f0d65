import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { canceled, SlipwayError } from "../errors/errors.ts";
import {
	decodeMessage,
	encodeMessage,
	formatTimeout,
	parseTimeout,
	readStatus,
	statusTrailers,
} from "./metadata.ts";
import { codeNumber, codeOfNumber, errorOf, statusOf } from "./status.ts";

const json = (value: Uint8Array | undefined): unknown => JSON.parse(Buffer.from(value ?? []).toString());

describe("statusOf and errorOf", () => {
	test("details are BuildKit's JSON, with what is zero left out as Go does", () => {
		const status = statusOf(
			new SlipwayError("unknown", "failed", {
				details: [
					{ kind: "exit", code: 0 },
					{ kind: "exit", code: 3 },
					{ kind: "vertex", digest: "sha256:00" },
					{
						kind: "source",
						file: { filename: "Dockerfile", data: Buffer.from("FROM x") },
						ranges: [{ start: { line: 1, character: 0 }, end: { line: 2, character: 4 } }],
					},
				],
			}),
		);
		assert.equal(status.code, 2);
		assert.deepEqual(
			status.details.map(({ typeUrl, value }) => [typeUrl, json(value)]),
			[
				["github.com/moby/buildkit/gatewayapi.ExitMessage+json", {}],
				["github.com/moby/buildkit/gatewayapi.ExitMessage+json", { Code: 3 }],
				["github.com/moby/buildkit/errdefs.Vertex+json", { digest: "sha256:00" }],
				[
					"github.com/moby/buildkit/errdefs.Source+json",
					{
						info: { filename: "Dockerfile", data: "RlJPTSB4" },
						ranges: [{ start: { line: 1 }, end: { line: 2, character: 4 } }],
					},
				],
			],
		);
	});

	test("details that are damaged or unknown pass as they are", () => {
		const details = [
			{ typeUrl: "github.com/moby/buildkit/errdefs.Vertex+json", value: Buffer.from("{") },
			{ typeUrl: "github.com/moby/buildkit/errdefs.Vertex+json", value: Buffer.from("[]") },
			{ typeUrl: "github.com/moby/buildkit/errdefs.Source+json", value: Buffer.from('{"info":3}') },
			{ typeUrl: "github.com/moby/buildkit/stack.Stack+json", value: Buffer.from("{}") },
		];
		const error = errorOf({ code: 5, message: "m", details });
		assert.ok(error.details.every(({ kind }) => kind === "foreign"));
		assert.deepEqual(statusOf(error), { code: 5, message: "m", details });
	});

	test("a source detail of another shape is read as far as it goes", () => {
		const value = Buffer.from('{"info":{"filename":7},"ranges":[{"start":{"line":"x"}},null]}');
		const [detail] = errorOf({
			code: 2,
			message: "",
			details: [{ typeUrl: "github.com/moby/buildkit/errdefs.Source+json", value }],
		}).details;
		const nowhere = { line: 0, character: 0 };
		assert.deepEqual(detail, {
			kind: "source",
			file: { filename: "", data: new Uint8Array(0) },
			ranges: [
				{ start: nowhere, end: nowhere },
				{ start: nowhere, end: nowhere },
			],
		});
	});

	test("numbers of codes, both ways", () => {
		assert.equal(codeNumber("unauthenticated"), 16);
		assert.equal(codeOfNumber(1), "canceled");
		for (const number of [0, 17, -1, 2 ** 31, 1.5]) {
			assert.equal(codeOfNumber(number), "unknown");
		}
		assert.equal(statusOf(canceled()).code, 1);
		assert.equal(statusOf("text").message, "text");
	});

	test("a long source keeps the lines around its place, with their numbers", () => {
		const lines = Array.from({ length: 5000 }, (_, index) => `RUN echo ${index + 1}`);
		const status = statusOf(
			new SlipwayError("unknown", "m", {
				details: [
					{
						kind: "source",
						file: { filename: "Dockerfile", data: Buffer.from(lines.join("\n")) },
						ranges: [{ start: { line: 3000, character: 0 }, end: { line: 3001, character: 0 } }],
					},
				],
			}),
		);
		const [detail] = errorOf(status).details;
		assert.ok(detail?.kind === "source");
		const kept = Buffer.from(detail.file.data).toString().split("\n");
		assert.equal(kept.length, 5000);
		assert.equal(kept[2999], "RUN echo 3000");
		assert.equal(kept[0], "");
	});
});

describe("trailers", () => {
	const flat = (trailers: Readonly<Record<string, unknown>>) =>
		Object.entries(trailers).flatMap(([name, value]) => [name, String(value)]);

	test("a message that is too large for headers is cut, details that are too large are left out", () => {
		const error = new SlipwayError("unknown", "ü".repeat(100_000), {
			details: [
				{ kind: "foreign", typeUrl: "x/large", value: Buffer.alloc(200_000) },
				{ kind: "vertex", digest: "sha256:00" },
			],
		});
		const trailers = flat(statusTrailers(error));
		assert.ok(trailers.join("").length < 140_000);
		const back = readStatus(trailers);
		assert.deepEqual(back?.details, [{ kind: "vertex", digest: "sha256:00" }]);
		assert.match(back?.message ?? "", /^ü{1000,}/);
	});

	test("what is no status", () => {
		assert.equal(readStatus([])?.message, "server closed the stream without sending trailers");
		assert.equal(readStatus(["grpc-status", "0"]), undefined);
		for (const text of ["", "x", "-1", "99999999999", "77"]) {
			assert.equal(readStatus(["grpc-status", text])?.code, "unknown", text);
		}
		const damaged = readStatus(["grpc-status", "5", "grpc-message", "a%", "grpc-status-details-bin", "////"]);
		assert.deepEqual([damaged?.code, damaged?.message], ["not-found", "a%"]);
	});

	test("percent encoding", () => {
		for (const text of ["", "plain", "100 %", "ü\n\u0000", "%41", "\ud83d\ude00"]) {
			assert.equal(decodeMessage(encodeMessage(text)), text);
			assert.match(encodeMessage(text), /^[\x20-\x7e]*$/);
		}
		assert.equal(decodeMessage("%4x%zz%e2%82%ac%"), "%4x%zz€%");
	});

	test("timeouts", () => {
		assert.equal(parseTimeout("5S"), 5000);
		assert.equal(parseTimeout("99999999n"), 99.999999);
		assert.equal(formatTimeout(1.2), "2m");
		assert.equal(formatTimeout(0), "0m");
		assert.equal(formatTimeout(1e9), "1000000S");
		for (const milliseconds of [1, 99_999_999, 1e8, 1e12, Number.MAX_SAFE_INTEGER]) {
			assert.ok(parseTimeout(formatTimeout(milliseconds)) > 0);
			assert.ok(formatTimeout(milliseconds).length <= 9);
		}
	});
});
