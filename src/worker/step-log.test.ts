import assert from "node:assert/strict";
import { test } from "node:test";
import type { ProgressEvent } from "../progress/progress.ts";
import type { StepContext } from "../solver/solver.ts";
import { createStepLog } from "./step-log.ts";
import type { LogLimits } from "./worker.ts";

function logOf(limits: LogLimits): {
	readonly write: (text: string, stream?: 1 | 2) => void;
	readonly flush: () => void;
	readonly clock: { now: number };
	readonly shown: string[];
} {
	const clock = { now: 1000 };
	const shown: string[] = [];
	const context = {
		vertex: "sha256:0",
		progress: {
			write: (event: ProgressEvent) => {
				if (event.kind === "log") {
					shown.push(`${event.log.stream}:${Buffer.from(event.log.data).toString()}`);
				}
			},
		},
	} as unknown as StepContext;
	const log = createStepLog(context, limits, () => clock.now);
	return {
		write: (text, stream = 1) => log.write(stream, Buffer.from(text)),
		flush: () => log.flush(),
		clock,
		shown,
	};
}

test("what is below the limits is shown as it is, nothing is repeated", () => {
	const log = logOf({ maxBytes: 10, maxBytesPerSecond: -1 });
	log.write("12345");
	log.write("67890");
	log.flush();
	assert.deepEqual(log.shown, ["1:12345", "1:67890"]);
});

test("a limit of size cuts once for good, for each stream; the rest is shown if the step fails", () => {
	const log = logOf({ maxBytes: 6, maxBytesPerSecond: -1 });
	log.write("1234");
	log.write("5678");
	log.write("90");
	log.write("err", 2);
	log.flush();
	assert.deepEqual(log.shown, [
		"1:1234",
		"1:56\n[output clipped, log limit 6B reached]\n",
		"2:err",
		"1:567890",
	]);
});

test("a limit of speed cuts until time has caught up, and says so each time", () => {
	const log = logOf({ maxBytes: 1000, maxBytesPerSecond: 4 });
	log.write("123456");
	log.write("78");
	log.clock.now = 4500;
	log.write("ab");
	log.write("cdefghi");
	assert.deepEqual(log.shown, [
		"1:1234\n[output clipped, log limit 4B/s reached]\n",
		"1:ab",
		"1:cdefgh\n[output clipped, log limit 4B/s reached]\n",
	]);
});

test("no limit of size is no limit at all, as with BuildKit", () => {
	const log = logOf({ maxBytes: -1, maxBytesPerSecond: 1 });
	log.write("12345");
	assert.deepEqual(log.shown, ["1:12345"]);
});

test("limits are named as Go names sizes", () => {
	for (const [maxBytes, name] of [
		[1000, "1000B"],
		[1500, "1.46484375KiB"],
		[200 * 1024, "200KiB"],
		[2 * 1024 * 1024, "2MiB"],
	] as const) {
		const log = logOf({ maxBytes, maxBytesPerSecond: -1 });
		log.write("x".repeat(maxBytes + 1));
		assert.ok(log.shown[0]?.endsWith(`\n[output clipped, log limit ${name} reached]\n`), name);
	}
});

test("at most the last 256 KiB of what was cut are shown", () => {
	const log = logOf({ maxBytes: 1, maxBytesPerSecond: -1 });
	for (let i = 0; i < 40; i++) {
		log.write(`${i % 10}`.repeat(10_000));
	}
	log.flush();
	const [, tail = ""] = log.shown;
	assert.equal(tail.length, 2 + 256 * 1024);
	assert.ok(tail.endsWith("9".repeat(10_000)));
});
