import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { runProcess } from "./process-io.ts";

test("an abort before the runtime has said which process it runs ends that process too", {
	timeout: 20_000,
}, async () => {
	const abort = new AbortController();
	// The stand-in for the runtime begins a process in a session of its own, and never writes a number.
	const script = "setsid sh -c 'echo begun $$; exec sleep 600' & sleep 600";
	let said = "";
	const status = await runProcess({
		argv: () => ["/bin/sh", "-c", script],
		sendsTerminal: false,
		env: { PATH: "/usr/bin:/bin" },
		pidFile: "/nonexistent/pid",
		io: {},
		onOutput(_, chunk) {
			said += Buffer.from(chunk).toString();
			abort.abort(new Error("enough"));
		},
		onStarted: undefined,
		signal: abort.signal,
	});
	assert.equal(status.signal, "SIGKILL");
	const [, pid = "0"] = /^begun (\d+)/.exec(said) ?? [];
	// Whoever adopted it may take a moment to notice.
	for (let waits = 0; isAlive(pid); waits++) {
		assert.ok(waits < 200, "it still runs");
		await new Promise((resolve) => setTimeout(resolve, 10));
	}
});

function isAlive(pid: string): boolean {
	try {
		return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
	} catch {
		return false;
	}
}
