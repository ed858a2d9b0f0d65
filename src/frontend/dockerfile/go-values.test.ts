import assert from "node:assert/strict";
import { test } from "node:test";
import { byteLength, decodeText, encodeText, fromByteString, toByteString } from "../../oci/byte-text.ts";
import { formatGoDuration, parseGoDuration } from "../../oci/go-duration.ts";
import { quoteGo } from "../../oci/go-quote.ts";
import { parseGoUint32, parseRamSize } from "./go-number.ts";
import { compareText, equalFold, toLower, toUpper, trimSpace } from "./go-text.ts";

test("decodeText and encodeText keep every byte", () => {
	const bytes = Uint8Array.from({ length: 512 }, (_, index) => (index * 37) & 0xff);
	assert.deepEqual(encodeText(decodeText(bytes)), bytes);
	const mixed = Buffer.from("a\xff\xed\xa0\x80\xf0\x9f\x8e\x89\xc3\xa9\xc3", "latin1");
	assert.equal(decodeText(mixed), "a\udcff\udced\udca0\udc80🎉é\udcc3");
	assert.equal(byteLength("é\udcff"), 3);
	assert.equal(fromByteString(toByteString("é🎉\udcff")), "é🎉\udcff");
});

test("quoteGo quotes as strconv.Quote", () => {
	assert.equal(
		quoteGo("a 'b' é\u00a0\u200b\udcff\t\x01\x7f\"\\🎉\u{e0001}"),
		'"a \'b\' é\\u00a0\\u200b\\xff\\t\\x01\\x7f\\"\\\\🎉\\U000e0001"',
	);
});

test("text functions follow Go where JavaScript differs", () => {
	assert.equal(trimSpace("\u0085 \ufeffa\u00a0"), "\ufeffa");
	assert.equal(toLower("İΣ"), "iσ");
	assert.equal(toUpper("ßé"), "ßÉ");
	assert(equalFold("aſ", "AS"));
	assert.deepEqual(["\u{1f389}", "\uffff", "b", "ab", "a"].toSorted(compareText), [
		"a",
		"ab",
		"b",
		"\uffff",
		"\u{1f389}",
	]);
});

test("parseGoDuration and formatGoDuration follow the time package", () => {
	for (const [text, shown] of [
		["0", "0s"],
		["1h", "1h0m0s"],
		["1m30s", "1m30s"],
		["-1.5s", "-1.5s"],
		["100ms", "100ms"],
		["1.5\u00b5s", "1.5\u00b5s"],
		["42ns", "42ns"],
		["0.5h.25m", "30m15s"],
	] as const) {
		assert.equal(formatGoDuration(parseGoDuration(text)), shown, text);
	}
	for (const [text, message] of [
		["", 'time: invalid duration ""'],
		["x", 'time: invalid duration "x"'],
		["5", 'time: missing unit in duration "5"'],
		["5é", 'time: unknown unit "\\xc3\\xa9" in duration "5\\xc3\\xa9"'],
		["9999999h", 'time: invalid duration "9999999h"'],
		[".s", 'time: invalid duration ".s"'],
	] as const) {
		assert.throws(() => parseGoDuration(text), { message }, text);
	}
});

test("parseRamSize reads sizes as go-units", () => {
	for (const [text, size] of [
		["10", 10],
		["1k", 1024],
		["1.5 GiB", 1.5 * 2 ** 30],
		["2mb", 2 << 20],
		["1 ", 1],
		["7b", 7],
		["1e3", 1000],
		["", undefined],
		["k", undefined],
		["-1", undefined],
		["1  k", undefined],
		["1bb", undefined],
		["1kib ", undefined],
		["1e31", undefined],
	] as const) {
		assert.equal(parseRamSize(text), size, text);
	}
	assert.equal(parseGoUint32("0777", 8), 0o777);
	assert.equal(parseGoUint32("4294967296", 10), undefined);
	assert.equal(parseGoUint32("+1", 10), undefined);
});
