import assert from "node:assert/strict";
import { test } from "node:test";
import { normalizeHistory, readHistory } from "./history.ts";

const time = (second: number): string => `2020-01-01T00:00:0${second}Z`;
const layer = (second: number, description = ""): { createdAt: number; description: string } => ({
	createdAt: Date.parse(time(second)),
	description,
});

test("normalizeHistory: layers without an entry get one", () => {
	assert.deepEqual(normalizeHistory(undefined, [layer(1, "step"), layer(2)]), [
		{ created: time(1), created_by: "step", comment: "buildkit.exporter.image.v0" },
		{ created: time(2), created_by: "created by buildkit", comment: "buildkit.exporter.image.v0" },
	]);
});

test("normalizeHistory: entries without a layer are declared empty", () => {
	const history = normalizeHistory(
		[{ created_by: "a" }, { created_by: "b" }, { created_by: "c" }],
		[layer(1)],
	);
	assert.deepEqual(history, [
		{ created_by: "a", created: time(1) },
		{ created_by: "b", empty_layer: true, created: time(1) },
		{ created_by: "c", empty_layer: true, created: time(1) },
	]);
});

test("normalizeHistory: a command has the time of the first new layer behind it, the last ones that of the layer before", () => {
	const history = normalizeHistory(
		[
			{ created: time(1) },
			{ created_by: "ENV", empty_layer: true },
			{},
			{ created_by: "LABEL", empty_layer: true },
			{},
			{ created_by: "CMD", empty_layer: true },
		],
		[layer(9), layer(3), layer(5)],
	);
	assert.deepEqual(
		history?.map(({ created }) => created),
		[time(1), time(3), time(3), time(3), time(5), time(5)],
	);
});

test("normalizeHistory: nothing at all stays nothing", () => {
	assert.equal(normalizeHistory(undefined, []), undefined);
	assert.deepEqual(normalizeHistory([{ created_by: "a", empty_layer: true }], []), [
		{ created_by: "a", empty_layer: true },
	]);
});

test("readHistory: times are as Go writes them, empty values and unknown keys are left out", () => {
	const entry = { created: "2020-01-01T00:00:00.1234567899+00:00", author: "", comment: "c", foo: 1 };
	assert.deepEqual(readHistory([entry, { created: "2020-01-01T00:00:00.500-07:00" }]), [
		{ created: "2020-01-01T00:00:00.123456789Z", comment: "c" },
		{ created: "2020-01-01T00:00:00.5-07:00" },
	]);
});
