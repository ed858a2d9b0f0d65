import assert from "node:assert/strict";
import { test } from "node:test";
import { sha256 } from "../oci/digest.ts";
import type { ProgressEvent, StatusRecord } from "../progress/progress.ts";
import { JobProgress } from "./job-progress.ts";

test("JobProgress opens a vertex again for work that goes on after its end, until the last piece has ended", () => {
	const events: ProgressEvent[] = [];
	const progress = new JobProgress({ write: (event) => events.push(event) });
	const digest = sha256("image");
	const status = (id: string, timestamp: number, completed?: number): void => {
		const record: StatusRecord = {
			vertex: digest,
			id,
			name: "",
			current: 0,
			total: 0,
			timestamp,
			started: timestamp,
		};
		progress.write({ kind: "status", status: completed === undefined ? record : { ...record, completed } });
	};
	progress.write({
		kind: "vertex",
		vertex: { digest, inputs: [], name: "FROM image", cached: true, started: 1, completed: 2 },
	});
	status("one", 10);
	status("two", 11);
	status("one", 12, 12);
	status("two", 13, 13);
	const vertices = events.flatMap((event) => (event.kind === "vertex" ? [event.vertex] : []));
	assert.deepEqual(
		vertices.map(({ started, completed, cached }) => ({ started, completed, cached })),
		[
			{ started: 1, completed: 2, cached: true },
			{ started: 10, completed: undefined, cached: false },
			{ started: 10, completed: 13, cached: false },
		],
	);
	assert.equal(events.at(-1)?.kind, "vertex", "the end comes after the last status");
});
