import assert from "node:assert/strict";
import { test } from "node:test";
import { findDetail, SlipwayError } from "../../errors/errors.ts";
import { encodeText } from "../../oci/byte-text.ts";
import { type InstructionNode, type ParsedDockerfile, parseDockerfile } from "./parser.ts";

function parse(text: string | Uint8Array): ParsedDockerfile {
	return parseDockerfile(typeof text === "string" ? new TextEncoder().encode(text) : text);
}

function only(text: string): InstructionNode {
	const { instructions } = parse(text);
	assert.equal(instructions.length, 1);
	return instructions[0] as InstructionNode;
}

function words(text: string): readonly string[] {
	const args = only(text).arguments;
	assert.equal(args.kind, "words");
	return args.kind === "words" ? args.words : [];
}

function linesOf(ranges: readonly { start: { line: number } }[]): number[] {
	return ranges.map((range) => range.start.line);
}

function failure(text: string): { message: string; lines: readonly number[] } {
	try {
		parse(text);
	} catch (error) {
		assert(error instanceof SlipwayError);
		assert.equal(error.code, "invalid-argument");
		return { message: error.message, lines: linesOf(findDetail(error, "source")?.ranges ?? []) };
	}
	return { message: "", lines: [] };
}

test("parseDockerfile joins continued lines and gives one range per physical line", () => {
	const parsed = parse("FROM a\nRUN one \\\n  # comment\n  two\\ \t\n three\nUSER x");
	assert.deepEqual(
		parsed.instructions.map((node) => [node.original, linesOf(node.ranges)]),
		[
			["FROM a", [1]],
			["RUN one   two three", [2, 3, 4, 5]],
			["USER x", [6]],
		],
	);
});

test("parseDockerfile does not continue after an escaped escape token", () => {
	assert.equal(parse("RUN a\\\\\nRUN b").instructions.length, 2);
	assert.equal(parse("RUN a \\\nRUN b").instructions.length, 1);
	assert.equal(only("\\\n\\\nRUN x").keyword, "RUN");
});

test("parseDockerfile reports blank lines inside a continuation", () => {
	const parsed = parse("RUN a \\\n\n  b\n");
	assert.deepEqual(
		parsed.warnings.map(({ kind, line }) => ({ kind, line })),
		[{ kind: "empty-continuation", line: "RUN a   b" }],
	);
	assert.deepEqual(linesOf(parsed.warnings[0]?.ranges ?? []), [3]);
});

test("parseDockerfile collects the comments above an instruction", () => {
	const parsed = parse("# gone\n#\n# kept\n\n  # indented\nFROM a\n# b\nRUN x\nRUN y");
	assert.deepEqual(
		parsed.instructions.map((node) => node.comments),
		[["kept", "# indented"], ["b"], []],
	);
});

test("parseDockerfile reads directives and uses the escape token", () => {
	const parsed = parse("#syntax = docker/dockerfile:1\n# Escape=`\n# check=skip=all \nRUN a `\n b\\\nRUN c");
	assert.equal(parsed.escapeToken, "`");
	assert.deepEqual(
		parsed.directives.map(({ name, value }) => [name, value]),
		[
			["syntax", "docker/dockerfile:1"],
			["escape", "`"],
			["check", "skip=all"],
		],
	);
	assert.deepEqual(
		parsed.instructions.map((node) => [node.original, node.comments]),
		[
			["RUN a  b\\", []],
			["RUN c", []],
		],
	);
});

test("parseDockerfile ignores directives after the first line that is none", () => {
	for (const start of ["# plain\n", "\n", "# unknown=1\n"]) {
		assert.equal(parse(`${start}# escape=\`\nRUN a`).escapeToken, "\\");
	}
});

test("parseDockerfile splits words by the instruction's grammar", () => {
	assert.deepEqual(words("COPY a  b\tc"), ["a", "b", "c"]);
	assert.deepEqual(words('COPY [ "a b", "c\\u0041" ]'), ["a b", "cA"]);
	assert.deepEqual(words("RUN a  b "), ["a  b"]);
	assert.deepEqual(words("RUN ['a']"), ["['a']"]);
	assert.deepEqual(words('ARG a="b c" d\\ e f\\'), ['a="b c"', "d\\ e", "f"]);
	assert.deepEqual(words("HEALTHCHECK CMD  a b"), ["CMD", "a b"]);
	assert.deepEqual(words("NOTHING a b"), []);
	assert.deepEqual(only("LABEL a=1 b='2 3'").arguments, {
		kind: "pairs",
		pairs: [
			{ key: "a", value: "1", legacy: false },
			{ key: "b", value: "'2 3'", legacy: false },
		],
	});
	assert.deepEqual(only("ENV a b  c").arguments, {
		kind: "pairs",
		pairs: [{ key: "a", value: "b  c", legacy: true }],
	});
	assert.deepEqual(only("ONBUILD copy [] ").arguments, {
		kind: "trigger",
		trigger: { keyword: "copy", json: true },
	});
});

test("parseDockerfile takes leading flags, quoted and escaped, up to --", () => {
	const node = only('RUN --a=\'x y\' --b="1\\"" --c\\ d -- --e f');
	assert.deepEqual(node.flags, ["--a=x y", '--b=1"', "--c d"]);
	assert.deepEqual(words("RUN --a -- --e f"), ["--e f"]);
	assert.deepEqual(only("COPY --chown=é a b").flags, ["--chown=Ã©"]);
});

test("parseDockerfile reads heredocs in order, with their line endings", () => {
	const node = only("COPY <<A <<-'B' /x\r\none\r\nA\n\ttwo\n\t\tB\n");
	assert.deepEqual(node.heredocs, [
		{ name: "A", expand: true, chomp: false, content: "one\r\n" },
		{ name: "B", expand: false, chomp: true, content: "\ttwo\n" },
	]);
	assert.deepEqual(linesOf(node.ranges), [1, 2, 3, 4, 5]);
	assert.deepEqual(
		only("ONBUILD RUN cat 3<< E\n# no comment\nE").heredocs.map((heredoc) => heredoc.content),
		["# no comment\n"],
	);
});

test("parseDockerfile finds no heredoc where none can be", () => {
	for (const line of [
		"USER <<A",
		'COPY ["<<A", "/x"]',
		'RUN "<<A"',
		"RUN a<<<b",
		"RUN $((1<<2))",
		"RUN 'a <<A",
	]) {
		assert.deepEqual(only(line).heredocs, [], line);
	}
});

test("parseDockerfile keeps bytes that are not UTF-8", () => {
	const data = Buffer.from("COPY <<'E' /x\n\xff\xe9ok\nE\n", "latin1");
	const content = parse(data).instructions[0]?.heredocs[0]?.content ?? "";
	assert.deepEqual(Buffer.from(encodeText(content)), Buffer.from("\xff\xe9ok\n", "latin1"));
});

test("parseDockerfile skips a byte order mark", () => {
	assert.equal(only("\ufeffFROM a").keyword, "FROM");
});

test("parseDockerfile names the place of an error", () => {
	assert.deepEqual(failure(""), { message: "file with no instructions", lines: [0] });
	assert.deepEqual(failure("# a\n\n"), { message: "file with no instructions", lines: [2] });
	assert.deepEqual(failure("FROM a\nRUN <<E \\\n x\nE2"), {
		message: "unterminated heredoc",
		lines: [2, 3, 4],
	});
	assert.deepEqual(failure("ENV a"), { message: "ENV must have two arguments", lines: [1] });
	assert.deepEqual(failure("LABEL a=b c"), {
		message: 'Syntax error - can\'t find = in "c". Must be of the form: name=value',
		lines: [1],
	});
	assert.deepEqual(failure("RUN [1]"), {
		message: "when using JSON array syntax, arrays must be comprised of strings only",
		lines: [1],
	});
	assert.deepEqual(failure("# escape=x\nRUN a"), {
		message: "invalid escape token 'x' does not match ` or \\",
		lines: [0],
	});
	assert.deepEqual(failure("# syntax=a\n# syntax=b\nRUN a"), {
		message: "only one syntax parser directive can be used",
		lines: [1],
	});
});

test("parseDockerfile refuses a line of 64 KiB, counted in bytes", () => {
	const message = "dockerfile line greater than max allowed size of 65535";
	assert.equal(failure(`FROM a\nRUN ${"x".repeat(65531)}\nRUN b`).message, "");
	assert.deepEqual(failure(`FROM a\nRUN ${"x".repeat(65532)}\nRUN b`), { message, lines: [1] });
	assert.equal(failure(`FROM a\nRUN ${"é".repeat(32766)}`).message, message);
	assert.equal(failure("x".repeat(70000)).message, "file with no instructions");
});

test("parseDockerfile takes hostile sizes in linear time", () => {
	assert.equal(parse("RUN true\n".repeat(100_000)).instructions.length, 100_000);
	assert.equal(only(`RUN ${"\\\nx".repeat(100_000)}`).ranges.length, 100_001);
	assert.equal(only(`${"ONBUILD ".repeat(8000)}RUN x`).keyword, "ONBUILD");
	assert.equal(only(`${"ONBUILD \\\n".repeat(100_000)}RUN x`).keyword, "ONBUILD");
	assert.equal(only(`RUN ${"[".repeat(60_000)}`).keyword, "RUN");
	assert.equal(only(`RUN ${"<<".repeat(30_000)}`).keyword, "RUN");
	assert.equal(only(`RUN <<${" ".repeat(60_000)}<`).keyword, "RUN");
	assert.equal(only(`# check=${" ".repeat(60_000)}x${" ".repeat(5000)}\nRUN x`).keyword, "RUN");
	assert.equal(only(`RUN ${"--a ".repeat(16_000)}`).flags.length, 16_000);
});
