import assert from "node:assert/strict";
import { test } from "node:test";
import { GoStruct, GoTime, parseTemplate } from "./go-template.ts";
import { tabTable } from "./tab-table.ts";

const record = new GoStruct([
	{ name: "ID", json: "id", value: "a<b" },
	{ name: "Size", json: "size", value: 12 },
	{ name: "LastUsedAt", json: "lastUsedAt", value: undefined },
	{ name: "Parents", json: "parents", value: ["p", "q"] },
	{ name: "Labels", json: "labels", value: { z: "1", b: "2" } },
]);

test("parseTemplate renders fields, lists, conditions and JSON as Go does", () => {
	const cases: readonly (readonly [template: string, data: unknown, expected: string])[] = [
		[
			"json",
			[record],
			'[{"id":"a\\u003cb","size":12,"lastUsedAt":null,"parents":["p","q"],"labels":{"b":"2","z":"1"}}]',
		],
		["{{.ID}} {{.Size}}", record, "a<b 12"],
		["{{.}}", record, "{a<b 12 <nil> [p q] map[b:2 z:1]}"],
		["{{range .}}{{.ID}};{{else}}none{{end}}", [record, record], "a<b;a<b;"],
		["{{range .}}{{.ID}};{{else}}none{{end}}", [], "none"],
		["{{if .LastUsedAt}}used{{else}}unused{{end}} {{len .Parents}}", record, "unused 2"],
		["x {{- .Size -}} y", record, "x12y"],
		["{{json .Labels.b}}", record, '"2"'],
	];
	for (const [template, data, expected] of cases) {
		assert.equal(parseTemplate(template)(data), expected, template);
	}
});

test("parseTemplate refuses what it does not understand", () => {
	assert.throws(() => parseTemplate("{{printf .ID}}"), /is not supported: use \{\{json \.\}\}/);
	assert.throws(() => parseTemplate("{{range .}}x"), /unexpected EOF/);
	assert.throws(() => parseTemplate("x{{end}}"), /unexpected \{\{end\}\}/);
	assert.throws(() => parseTemplate("{{.Nope}}")(record), /there is no field Nope, only ID, Size/);
});

test("GoTime has Go's two forms", () => {
	const time = new GoTime(Date.UTC(2026, 10, 21, 9, 5, 7) + 0.25);
	assert.equal(String(time), "2026-11-21 09:05:07.00025 +0000 UTC");
	assert.equal(JSON.stringify(time), '"2026-11-21T09:05:07.00025Z"');
	assert.equal(String(new GoTime(0)), "1970-01-01 00:00:00 +0000 UTC");
});

test("tabTable aligns columns of neighbouring rows with tabs of eight", () => {
	assert.equal(
		tabTable([
			["ID", "PLATFORMS"],
			["x".repeat(9), "a"],
		]),
		`ID\t\tPLATFORMS\n${"x".repeat(9)}\ta\n`,
	);
	assert.equal(
		tabTable([["ID:", "z"], ["Labels:"], ["", "name:", "1"], ["", "longer-name:", "2"], [""]]),
		"ID:\tz\nLabels:\n\tname:\t\t1\n\tlonger-name:\t2\n\n",
	);
});
