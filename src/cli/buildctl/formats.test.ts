import assert from "node:assert/strict";
import { test } from "node:test";
import { parseTemplate } from "./go-template.ts";
import { GoDuration, GoEnum, GoNil, GoStruct, GoTime } from "./go-values.ts";
import { tabTable } from "./tab-table.ts";

const record = new GoStruct([
	{ name: "ID", json: "id", value: "a<b" },
	{ name: "Size", json: "size", value: 12 },
	{ name: "LastUsedAt", json: "lastUsedAt", value: undefined },
	{ name: "Parents", json: "parents", value: ["p", "q"] },
	{ name: "Labels", json: "labels", value: { z: "1", b: "2" } },
]);

const message = new GoStruct([
	{ name: "Type", json: "type", value: new GoEnum(1, "COMPLETE"), omitEmpty: true },
	{ name: "Error", json: "error", value: undefined, omitEmpty: true },
	{ name: "Filter", json: "filter", value: new GoNil("[]") },
	{ name: "Keep", json: "keep", value: new GoDuration(172_800e9) },
]);

test("parseTemplate renders fields, lists, conditions and JSON as Go does", () => {
	const cases: readonly (readonly [template: string, data: unknown, expected: string])[] = [
		[
			"json",
			[record],
			'[{"id":"a<b","size":12,"lastUsedAt":null,"parents":["p","q"],"labels":{"b":"2","z":"1"}}]',
		],
		["{{.ID}} {{.Size}}", record, "a<b 12"],
		["{{.}}", record, "{a<b 12 <nil> [p q] map[b:2 z:1]}"],
		["{{range .}}{{.ID}};{{else}}none{{end}}", [record, record], "a<b;a<b;"],
		["{{range .}}{{.ID}};{{else}}none{{end}}", [], "none"],
		["{{if .LastUsedAt}}used{{else}}unused{{end}} {{len .Parents}}", record, "unused 2"],
		["x {{- .Size -}} y", record, "x12y"],
		["{{json .Labels.b}}", record, '"2"'],
		['{{range .}}{{.ID}}{{"\\n"}}{{end}}', [record, record], "a<b\na<b\n"],
		["{{(index . 0).ID}} {{index .  1 | json | len}}", [record, "é"], "a<b 4"],
		["{{range $i, $e := .Parents}}{{if $i}},{{end}}{{$e}}{{end}}", record, "p,q"],
		["{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", record, "b=2;z=1;"],
		["{{$n := .Size}}{{with .Labels}}{{.z}}{{$n}}{{$.ID}}{{else}}none{{end}}", record, "112a<b"],
		["{{if eq .Size 1}}one{{else if gt .Size 10}}many{{else}}some{{end}}", record, "many"],
		['{{printf "%-5s|%5.1f|%03d|%q" .ID 1.25 .Size "x"}}', record, 'a<b  |  1.3|012|"x"'],
		["{{range .Parents}}{{if eq . `q`}}{{break}}{{end}}{{.}}{{end}}", record, "p"],
		["{{and .Size .ID}} {{or .LastUsedAt `never`}} {{not .LastUsedAt}}", record, "a<b never true"],
		["a {{- /* a comment */ -}} b{{len `}}`}}", record, "ab2"],
		["{{.Type}} {{.Error}} {{.Filter}} {{.Keep}} {{len .Filter}}", message, "COMPLETE <nil> [] 48h0m0s 0"],
		["{{json .}}", message, '{"type":1,"filter":null,"keep":172800000000000}'],
		['{{if eq .Type "COMPLETE"}}done{{end}}', message, "done"],
	];
	for (const [template, data, expected] of cases) {
		assert.equal(parseTemplate(template)(data), expected, template);
	}
});

test("parseTemplate refuses what it does not understand", () => {
	assert.throws(() => parseTemplate("{{nosuch .ID}}"), /template: function "nosuch" not defined/);
	assert.throws(() => parseTemplate('{{define "x"}}{{end}}'), /\{\{define\}\} is not supported/);
	assert.throws(() => parseTemplate("{{.ID"), /unclosed action/);
	assert.throws(() => parseTemplate("{{(.ID}}"), /unclosed left paren/);
	assert.throws(() => parseTemplate("{{.ID .Size}}"), /unexpected/);
	assert.throws(() => parseTemplate("{{$x}}")(record), /undefined variable "\$x"/);
	assert.throws(() => parseTemplate("{{index . 3}}")([1]), /index out of range: 3/);
	assert.throws(() => parseTemplate("{{range .}}x"), /unexpected EOF/);
	assert.throws(() => parseTemplate("x{{end}}"), /unexpected \{\{end\}\}/);
	assert.throws(() => parseTemplate("{{.Nope}}")(record), /can't evaluate field Nope: there are ID, Size/);
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
