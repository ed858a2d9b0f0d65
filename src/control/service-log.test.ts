import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { StatusResponse } from "../api/generated/control.ts";
import { openLocalContentStore } from "../content/local.ts";
import { sha256 } from "../oci/digest.ts";
import { BuildLog, splitMessages } from "./service-log.ts";

const directory = mkdtempSync(join(tmpdir(), "slipway-log-"));
after(() => rmSync(directory, { recursive: true }));
const never = new AbortController().signal;
const store = await openLocalContentStore({ root: directory, signal: never });
const vertex = sha256("v");

function writeLine(log: BuildLog, line: string): void {
	log.write({ kind: "log", log: { vertex, stream: 1, data: Buffer.from(line), timestamp: 1 } });
}

async function linesOf(messages: AsyncIterable<Uint8Array>): Promise<string> {
	let text = "";
	for await (const message of messages) {
		text += StatusResponse.decode(message)
			.logs.map(({ msg }) => Buffer.from(msg).toString())
			.join("");
	}
	return text;
}

test("BuildLog gives all to readers at any pace, from memory and from its file, and to the store", async () => {
	using log = new BuildLog({ store, maxMemoryBytes: 1000, batchMs: 0 });
	const early = linesOf(log.read(never));
	let written = "";
	for (let index = 0; index < 3000; index++) {
		const line = `line ${index} ${"x".repeat(200)}\n`;
		written += line;
		writeLine(log, line);
	}
	const reader = log.read(never);
	await reader.next();
	log.end();
	writeLine(log, "too late");
	assert.equal(await early, written);
	assert.equal(await linesOf(log.read(never)), written);
	const { digest, size } = await log.save(never);
	const chunks: Uint8Array[] = [];
	for await (const chunk of store.read(digest, { signal: never })) {
		chunks.push(chunk);
	}
	const bytes = Buffer.concat(chunks);
	assert.equal(bytes.length, size);
	assert.equal(sha256(bytes), digest);
	assert.ok(splitMessages(bytes).length > 1);
	// Who was reading goes on after the log is gone.
	log[Symbol.dispose]();
	await reader.next();
	await reader.return();
});

test("BuildLog leaves no file behind, and sends only the last state of what moves fast", async () => {
	const log = new BuildLog({ store, maxMemoryBytes: 10 });
	for (let current = 1; current <= 100; current++) {
		log.write({
			kind: "status",
			status: { vertex, id: "s", name: "", current, total: 100, timestamp: current },
		});
	}
	log.write({
		kind: "vertex",
		vertex: { digest: vertex, inputs: [], name: "n", cached: true, started: 1, completed: 2 },
	});
	log.end();
	const messages: StatusResponse[] = [];
	for await (const message of log.read(never)) {
		messages.push(StatusResponse.decode(message));
	}
	assert.deepEqual(
		messages.map(({ statuses }) => statuses.map(({ current }) => current)),
		[[100]],
	);
	assert.deepEqual(log.summary(), { steps: 1, cachedSteps: 1, completedSteps: 1, warnings: 0 });
	log[Symbol.dispose]();
	assert.deepEqual(readdirSync(join(directory, "ingest")), []);
});

test("BuildLog: a reader whose signal is aborted stops waiting", async () => {
	using log = new BuildLog({ store });
	const stop = new AbortController();
	const reading = linesOf(log.read(stop.signal));
	stop.abort();
	await assert.rejects(reading, { code: "canceled" });
});
