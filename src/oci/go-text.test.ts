import assert from "node:assert/strict";
import { test } from "node:test";
import { csvFields } from "./csv-fields.ts";
import { getEnv, setDefaultEnv, setEnv, splitEnv } from "./env.ts";
import { goJson, goMap, sortedKeys } from "./go-json.ts";
import { quoteGo } from "./go-quote.ts";
import { formatGoTime, goTimeFromMs, goTimeToMs, parseGoTime } from "./go-time.ts";

test("goJson: escapes as encoding/json does", () => {
	assert.equal(goJson("a<b>&c\u2028\u2029"), '"a\\u003cb\\u003e\\u0026c\\u2028\\u2029"');
	assert.equal(
		goJson('\b\f\n\r\t\v\0\u001f\u007f"\\/'),
		'"\\b\\f\\n\\r\\t\\u000b\\u0000\\u001f\u007f\\"\\\\/"',
	);
	assert.equal(goJson("é😀\ud800"), '"é😀\\ufffd"');
});

test("goJson: structs keep their order, maps are sorted by bytes", () => {
	const map = goMap({ "9": 1, "10": 2, "😀": 3, "\uffff": 4 });
	assert.equal(
		goJson({ z: 1, a: undefined, b: [null, true, 1.5, 10n], map }),
		'{"z":1,"b":[null,true,1.5,10],"map":{"10":2,"9":1,"\uffff":4,"😀":3}}',
	);
	assert.deepEqual(sortedKeys({ b: 1, a: 1 }), ["a", "b"]);
	assert.equal(goMap({}), undefined);
	assert.equal(goMap(undefined), undefined);
});

test("goJson: bytes, indentation and numbers", () => {
	assert.equal(goJson(new TextEncoder().encode("hello").subarray(1)), '"ZWxsbw=="');
	assert.equal(
		goJson({ a: [1, { b: {} }], c: [] }, { indent: "  " }),
		'{\n  "a": [\n    1,\n    {\n      "b": {}\n    }\n  ],\n  "c": []\n}',
	);
	assert.equal(goJson([1e21, 1e-7, 123456789012]), "[1e+21,1e-7,123456789012]");
	assert.throws(() => goJson(Number.NaN), { code: "internal" });
});

test("quoteGo: %q", () => {
	assert.equal(quoteGo('a"\\\n\0\u007f'), '"a\\"\\\\\\n\\x00\\x7f"');
	assert.equal(quoteGo("é\u00a0\u0085😀\ufeff\u{e0001}"), '"é\\u00a0\\u0085😀\\ufeff\\U000e0001"');
});

test("formatGoTime and parseGoTime: nanoseconds and zones", () => {
	const cases: Readonly<Record<string, string>> = {
		"2006-01-02T15:04:05Z": "2006-01-02T15:04:05Z",
		"2006-01-02T15:04:05.120Z": "2006-01-02T15:04:05.12Z",
		"2006-01-02T15:04:05.123456789999Z": "2006-01-02T15:04:05.123456789Z",
		"2006-01-02T15:04:05+07:30": "2006-01-02T07:34:05Z",
		"1969-12-31T23:59:59.999999999Z": "1969-12-31T23:59:59.999999999Z",
		"0001-01-01T00:00:00Z": "0001-01-01T00:00:00Z",
		"2004-02-29T00:00:00Z": "2004-02-29T00:00:00Z",
	};
	for (const [text, formatted] of Object.entries(cases)) {
		assert.equal(formatGoTime(parseGoTime(text)), formatted);
	}
	for (const text of [
		"",
		"2006-02-29T15:04:05Z",
		"2006-01-02T24:00:00Z",
		"2006-01-02 15:04:05Z",
		"2006-13-01T00:00:00Z",
	]) {
		assert.throws(() => parseGoTime(text), { code: "invalid-argument" }, text);
	}
	assert.throws(() => formatGoTime(1e18), { code: "out-of-range" });
});

test("times in milliseconds keep microseconds", () => {
	const ms = 1_700_000_000_123.457;
	assert.equal(formatGoTime(ms), "2023-11-14T22:13:20.123457Z");
	assert.equal(formatGoTime(999.9999), "1970-01-01T00:00:01Z");
	assert.deepEqual(goTimeFromMs(-0.5), { seconds: -1, nanos: 999_500_000 });
	assert.equal(goTimeToMs(parseGoTime("2023-11-14T22:13:20.123457Z")).toFixed(3), ms.toFixed(3));
});

test("setEnv replaces in place, else appends", () => {
	const list = ["A=1", "PATH=/bin", "EMPTY"];
	assert.deepEqual(setEnv(list, "PATH", "/x=y"), ["A=1", "PATH=/x=y", "EMPTY"]);
	assert.deepEqual(setEnv(list, "B", "2"), [...list, "B=2"]);
	assert.deepEqual(setDefaultEnv(list, "A", "2"), list);
	assert.deepEqual(setDefaultEnv(list, "B", "2"), [...list, "B=2"]);
	assert.equal(getEnv(list, "EMPTY"), "");
	assert.equal(getEnv(list, "NONE"), undefined);
	assert.deepEqual(splitEnv("A=b=c"), ["A", "b=c"]);
});

test("csvFields follows encoding/csv", () => {
	assert.deepEqual(csvFields('a=1,"b,""c""",,'), ["a=1", 'b,"c"', "", ""]);
	assert.deepEqual(csvFields(""), [""]);
	assert.throws(() => csvFields('é,b"c'), {
		message: 'parse error on line 1, column 5: bare " in non-quoted-field',
	});
	assert.throws(() => csvFields('"a'), {
		message: 'parse error on line 1, column 2: extraneous or missing " in quoted-field',
	});
	assert.throws(() => csvFields('"a"b'), {
		message: 'parse error on line 1, column 3: extraneous or missing " in quoted-field',
	});
});
