import assert from "node:assert/strict";
import { test } from "node:test";
import { type Interval, mergeIntervals, secondsOf } from "./intervals.ts";
import { LogBox } from "./log-box.ts";
import { fixed, formatBytes } from "./number-text.ts";
import { readDisplaySettings } from "./settings.ts";
import { padToWidth, textWidth, truncateToWidth } from "./text-width.ts";
import { VertexLog } from "./vertex-log.ts";

test("mergeIntervals: overlap, gaps and open ends", () => {
	const make = (pairs: readonly (readonly [number, number?])[]): Interval[] =>
		pairs.map(([from, stop]) => ({ start: from, stop }));
	const merge = (...pairs: readonly (readonly [number, number?])[]) => mergeIntervals(make(pairs));
	assert.deepEqual(merge(), []);
	assert.deepEqual(merge([2, 4], [2, 4]), make([[2, 4]]));
	assert.deepEqual(
		merge([7, 8], [0, 1], [2, 3]),
		make([
			[0, 1],
			[2, 3],
			[7, 8],
		]),
	);
	assert.deepEqual(merge([0, 10], [1, 2], [9, 10]), make([[0, 10]]));
	assert.deepEqual(
		merge([0, 3], [2, 5], [5, 8], [10, 12]),
		make([
			[0, 8],
			[10, 12],
		]),
	);
	assert.deepEqual(merge([0, 5], [6], [7, 8]), make([[0, 5], [6]]));
	assert.deepEqual(merge([0, 5], [3]), make([[0]]));
	assert.equal(secondsOf(make([[0, 1000], [2000]]), 4500), 3.5);
});

test("fixed: rounds as Go does", () => {
	const cases: readonly (readonly [value: number, digits: number, text: string])[] = [
		[0.25, 1, "0.2"],
		[0.75, 1, "0.8"],
		[0.35, 1, "0.3"],
		[2.5, 0, "2"],
		[3.5, 0, "4"],
		[0.125, 2, "0.12"],
		[-0.25, 1, "-0.2"],
		[1.05, 1, "1.1"],
		[100, 1, "100.0"],
	];
	for (const [value, digits, text] of cases) {
		assert.equal(fixed(value, digits), text, `${value}`);
	}
});

test("formatBytes: decimal units", () => {
	const cases: readonly (readonly [bytes: number, text: string])[] = [
		[0, "0B"],
		[999, "999B"],
		[1000, "1.00kB"],
		[1234, "1.23kB"],
		[999_999, "1000.00kB"],
		[9_876_543, "9.88MB"],
		[5e18, "5.00EB"],
		[5e21, "5000.00EB"],
	];
	for (const [bytes, text] of cases) {
		assert.equal(formatBytes(bytes), text);
	}
});

test("VertexLog: pieces, line restarts and the tail", () => {
	const log = new VertexLog();
	const append = (text: string | Uint8Array): string => log.append(Buffer.from(text), "0.1 ");
	append("one\ntw");
	assert.equal(log.take("#1 "), "#1 0.1 one\n#1 0.1 tw");
	append("o");
	append("\nthree");
	assert.equal(log.take("#1 "), "o\n#1 0.1 three");
	append("!");
	log.restartLine();
	assert.equal(log.take("#1 "), "#1 0.1 three!");
	append("?\nfour\n");
	log.restartLine();
	assert.equal(log.take("#1 "), "#1 0.1 three!?\n#1 0.1 four\n");
	assert.equal(log.take("#1 "), "");
	assert.deepEqual(log.tail, ["0.1 one", "0.1 two", "0.1 three!?", "0.1 four"]);
	const euro = Buffer.from("€\n");
	append(euro.subarray(0, 2));
	append(euro.subarray(2));
	assert.equal(log.take(""), "0.1 €\n");
	append("x\n".repeat(20));
	assert.equal(log.tail.length, 10);
	append("end");
	assert.equal(log.tail.length, 10);
	assert.equal(log.tail.at(-1), "0.1 end");
});

test("LogBox: a small terminal", () => {
	const draw = (text: string, height = 3, width = 8): readonly string[] => {
		const box = new LogBox(height, width);
		box.write(text);
		return box.lines.map((line) => line.trimEnd());
	};
	assert.deepEqual(draw("a\nb\nc\nd\n"), ["b", "c", "d"]);
	assert.deepEqual(draw("12345678901"), ["12345678", "901"]);
	assert.deepEqual(draw("abc\rX\bY"), ["Ybc"]);
	assert.deepEqual(draw("one\ntwo\x1b[1A\x1b[2K\x1b[GX"), ["X", "two"]);
	assert.deepEqual(draw("abcdef\x1b[3D\x1b[K"), ["abc"]);
	assert.deepEqual(draw("a\nb\x1b[2J"), []);
	assert.deepEqual(draw("\x1b]0;title\x07a\x1b[31mb\x1b[?25lc\x1b(d"), ["abcd"]);
	assert.deepEqual(draw("ab\x1b[sX\x1b[2;3HY\x1b[uZ"), ["abZ", "  Y"]);
	assert.deepEqual(draw("a\tb"), ["a      b"]);
	assert.deepEqual(draw("世界世界世"), ["世界世界", "世"]);
	assert.deepEqual(draw(`${"x".repeat(100_000)}\nend\n`), ["end"]);
});

test("LogBox: resize keeps the newest lines", () => {
	const box = new LogBox(4, 10);
	box.write("one\ntwo\nthree\nfour");
	box.resize(2, 6);
	assert.deepEqual(box.lines, ["three ", "four  "]);
	box.resize(3, 8);
	box.write("!\nfive");
	assert.deepEqual(
		box.lines.map((line) => line.trimEnd()),
		["three", "four!", "five"],
	);
});

test("LogBox: sequences may come in pieces", () => {
	const box = new LogBox(2, 10);
	for (const piece of ["ab\x1b", "[1", "Dc"]) {
		box.write(piece);
	}
	assert.deepEqual(
		box.lines.map((line) => line.trimEnd()),
		["ac"],
	);
});

test("textWidth, truncateToWidth, padToWidth: cells, not code units", () => {
	assert.equal(textWidth("abc"), 3);
	assert.equal(textWidth("é"), 1);
	assert.equal(textWidth("e\u0301"), 1);
	assert.equal(textWidth("世界"), 4);
	assert.equal(textWidth("🚀"), 2);
	assert.equal(textWidth("→…"), 2);
	assert.equal(truncateToWidth("a世界", 4), "a世");
	assert.equal(truncateToWidth("e\u0301x", 1), "e\u0301");
	assert.equal(truncateToWidth("abc", -1), "");
	assert.equal(padToWidth("世", 4), "世  ");
});

test("readDisplaySettings: colors, lines and rates", () => {
	const warnings: string[] = [];
	const read = (env: Readonly<Record<string, string>>) =>
		readDisplaySettings(env, (message) => warnings.push(message));
	assert.deepEqual(read({}), {
		colors: { run: "\x1b[34m", cancel: "\x1b[33m", error: "\x1b[31m", warning: "\x1b[33m" },
		logLines: 6,
		redrawMs: 100,
		tickMs: 150,
		truncateNames: false,
	});
	assert.equal(read({ BUILDKIT_TTY_LOG_LINES: "20" }).logLines, 20);
	assert.equal(read({ BUILDKIT_TTY_LOG_LINES: "x" }).logLines, 6);
	assert.equal(read({ TTY_DISPLAY_RATE: "40" }).redrawMs, 40);
	assert.equal(read({ NO_COLOR: "1", BUILDKIT_COLORS: "run=green" }).colors.run, undefined);
	assert.deepEqual(
		read({ BUILDKIT_COLORS: "run=green:error=255,0,0:Cancel=Light-Magenta:warning=default" }).colors,
		{
			run: "\x1b[32m",
			cancel: "\x1b[95m",
			error: "\x1b[38;5;196m",
			warning: "\x1b[39m",
		},
	);
	assert.equal(warnings.length, 0);
	read({ BUILDKIT_COLORS: "run:a=b=c:foo=red:run=pink:run=1,2:run=1,2,999" });
	assert.deepEqual(
		warnings.map((text) => text.slice(0, 40)),
		[
			"Could not parse BUILDKIT_COLORS componen",
			"Could not parse BUILDKIT_COLORS componen",
			"Unknown key found in BUILDKIT_COLORS (ex",
			"Unknown color value found in BUILDKIT_CO",
			"Could not parse value 1,2 as valid RGB c",
			"A field in BUILDKIT_COLORS appears to co",
		],
	);
});
