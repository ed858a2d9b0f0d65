import assert from "node:assert/strict";
import { test } from "node:test";
import * as pb from "./generated/ops.ts";
import { sortedEntries } from "./map-entries.ts";

test("sortedEntries: the order of UTF-8 bytes", () => {
	const map = new Map([
		["\u{1f600}", 1],
		["\ufffd", 2],
		["b", 3],
		["a", 4],
		["", 5],
	]);
	assert.deepEqual(
		sortedEntries(map).map(([, value]) => value),
		[5, 4, 3, 2, 1],
	);
});

/** Bytes that Go's `proto.MarshalOptions{Deterministic: true}` gives. */
test("generated encoders write what Go writes", () => {
	const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
	const attrs = new Map([
		["b", ""],
		["a", "1"],
	]);
	// Entries sorted, empty values written, the oneof's member behind fields of higher numbers.
	assert.equal(
		hex(
			pb.Op.encode({
				...pb.emptyOp(),
				constraints: pb.emptyWorkerConstraints(),
				op: { $case: "source", value: { identifier: "x", attrs } },
			}).finish(),
		),
		"5a001a120a017812060a01611201311205" + "0a01621200",
	);
	assert.equal(hex(pb.Input.encode({ digest: "", index: -1 }).finish()), "10ffffffffffffffffff01");
	assert.equal(
		hex(pb.FileActionRm.encode({ path: "", allowNotFound: false, allowWildcard: false }).finish()),
		"",
	);
	assert.equal(
		hex(pb.Meta.encode({ ...pb.emptyMeta(), validExitCodes: [0, -1] }).finish()),
		"620b00ffffffffffffffffff01",
	);
	const time = "1700000000123456789";
	const mkdir = pb.FileActionMkDir.encode({ ...pb.emptyFileActionMkDir(), timestamp: time }).finish();
	assert.equal(pb.FileActionMkDir.decode(mkdir).timestamp, time);
});
