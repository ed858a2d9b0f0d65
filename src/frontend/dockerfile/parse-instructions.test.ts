// biome-ignore-all lint/suspicious/noTemplateCurlyInString: shell words are what is tested
import assert from "node:assert/strict";
import { test } from "node:test";
import { findDetail, SlipwayError } from "../../errors/errors.ts";
import { expandInstruction } from "./expand-instruction.ts";
import type { Instruction, ParsedStages } from "./instructions.ts";
import { lintStages } from "./lint-stages.ts";
import { formatLintWarning, Linter, parseLintConfig } from "./linter.ts";
import { parseInstructions } from "./parse-instructions.ts";
import { parseDockerfile } from "./parser.ts";
import { expandWord, mapEnvironment, splitWords } from "./shell-words.ts";

function parse(text: string, lint: Linter = new Linter()): ParsedStages {
	return parseInstructions(parseDockerfile(new TextEncoder().encode(text)), lint);
}

function one<K extends Instruction["kind"]>(line: string, kind: K): Extract<Instruction, { kind: K }> {
	const instruction = parse(`FROM a\n${line}`).stages[0]?.instructions[0];
	assert.equal(instruction?.kind, kind);
	return instruction as Extract<Instruction, { kind: K }>;
}

function expanded<K extends Instruction["kind"]>(line: string, kind: K): Extract<Instruction, { kind: K }> {
	const env = mapEnvironment(
		new Map([
			["a", "one"],
			["ports", "80 90"],
		]),
	);
	return expandInstruction(one(line, kind), {
		word: (text) => expandWord({ escapeToken: "\\" }, text, env),
		words: (text) => splitWords({ escapeToken: "\\" }, text, env),
		document: (text) => expandWord({ escapeToken: "\\", skipProcessQuotes: true }, text, env),
	});
}

function failure(text: string): string {
	try {
		parse(text);
	} catch (error) {
		assert(error instanceof SlipwayError);
		assert.notEqual(findDetail(error, "source"), undefined);
		return error.message;
	}
	return "";
}

function warnings(text: string, check = ""): readonly string[] {
	const lint = new Linter(parseLintConfig(check));
	lintStages(parse(text, lint).stages, lint);
	return lint.warnings.map(formatLintWarning);
}

test("parseInstructions groups instructions by stage", () => {
	const parsed = parse("ARG g=1 h\nFROM --platform=$P a AS Build\nRUN x\n# b2 the last\nFROM Build as b2\n");
	assert.deepEqual(parsed.metaArgs[0]?.args, [
		{ key: "g", value: "1", description: "" },
		{ key: "h", description: "" },
	]);
	assert.deepEqual(
		parsed.stages.map(({ name, baseName, platform, description, instructions }) => [
			name,
			baseName,
			platform,
			description,
			instructions.map(({ kind }) => kind),
		]),
		[
			["build", "a", "$P", "", ["run"]],
			["b2", "Build", "", "the last", []],
		],
	);
});

test("parseInstructions reads the flags of COPY and ADD", () => {
	const copy = one(
		"COPY --from=x --chown=1:2 --chmod=u=rw --link --parents=TRUE --exclude=*.a --exclude=b s t <<E /d\nbody\nE",
		"copy",
	);
	assert.deepEqual(
		{ ...copy, keyword: "", source: "", ranges: [], comments: [] },
		{
			kind: "copy",
			keyword: "",
			source: "",
			ranges: [],
			comments: [],
			from: "x",
			chown: "1:2",
			chmod: "u=rw",
			link: true,
			parents: true,
			exclude: ["*.a", "b"],
			sources: ["s", "t"],
			documents: [{ name: "E", content: "body\n", expand: true }],
			destination: "/d",
		},
	);
	const add = one("ADD --keep-git-dir --unpack=false --checksum=sha256:0 a b", "add");
	assert.deepEqual([add.keepGitDir, add.unpack, add.checksum], [true, false, "sha256:0"]);
	assert.equal(one("ADD a b", "add").keepGitDir, undefined);
});

test("parseInstructions reads commands in both forms", () => {
	assert.deepEqual(one("CMD a  b", "cmd").command, { words: ["a  b"], shell: true });
	assert.deepEqual(one('ENTRYPOINT ["a", "b"]', "entrypoint").command, { words: ["a", "b"], shell: false });
	assert.deepEqual(one("ENTRYPOINT []", "entrypoint").command, { words: [], shell: false });
	const run = one("RUN --network=none --security=insecure --device=a=b,required <<-E\n\tx\nE", "run");
	assert.deepEqual(run.files, [{ name: "E", content: "\tx\n", chomp: true }]);
	assert.deepEqual(
		[run.network, run.security, run.devices],
		["none", "insecure", [{ name: "a=b", required: true }]],
	);
});

test("parseInstructions reads HEALTHCHECK", () => {
	const check = one(
		"HEALTHCHECK --interval=1m30s --timeout=1.5s --retries=3 --start-period=0 cmd x y",
		"healthcheck",
	);
	assert.deepEqual(
		[check.test, check.interval, check.timeout, check.retries, check.startPeriod],
		[["CMD-SHELL", "x y"], 90e9, 1.5e9, 3, 0],
	);
	assert.deepEqual(one("HEALTHCHECK NONE", "healthcheck").test, ["NONE"]);
	assert.deepEqual(one('HEALTHCHECK CMD ["a"]', "healthcheck").test, ["CMD", "a"]);
});

test("parseInstructions stores the text of ONBUILD with its heredocs", () => {
	assert.equal(one("onbuild  RUN <<E cat\nx\nE", "onbuild").expression, "RUN <<E cat\nx\nE");
});

test("parseInstructions says what is wrong in BuildKit's words", () => {
	for (const [line, message] of [
		["FRMO x", "unknown instruction: FRMO (did you mean FROM?)"],
		["ru x", "unknown instruction: ru (did you mean run?)"],
		["XYZZY", "unknown instruction: XYZZY"],
		["FROM", "FROM requires either one or three arguments"],
		["FROM a is b", "FROM requires either one or three arguments"],
		["FROM a AS 1", 'invalid name for build stage: "1", name can\'t start with a number or contain symbols'],
		["COPY --form=x a b", "unknown flag: --form (did you mean from?)"],
		["COPY --from a b", "missing a value on flag: --from"],
		["COPY --link= a b", "missing a value on flag: --link"],
		["COPY --link=1 a b", "expecting boolean value for flag --link, not: 1"],
		["COPY --link --link a b", "duplicate flag specified: --link"],
		[
			"ADD a",
			"ADD requires at least two arguments, but only one was provided. Destination could not be determined",
		],
		["COPY a <<E\nE", "COPY cannot accept a heredoc as a destination"],
		["ENV =x", "ENV names can not be blank"],
		["ARG =x", "ARG names can not be blank"],
		["LABEL", "LABEL requires at least one argument"],
		["USER", "USER requires exactly one argument"],
		['VOLUME [" "]', "VOLUME specified can not be an empty string"],
		["SHELL bash", "SHELL requires the arguments to be in JSON form"],
		["SHELL []", "SHELL requires at least one argument"],
		["HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"],
		["HEALTHCHECK foo", 'Unknown type "FOO" in HEALTHCHECK (try CMD)'],
		["HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"],
		["HEALTHCHECK --interval=1us CMD x", 'Interval "interval" cannot be less than 1ms'],
		["HEALTHCHECK --timeout=5 CMD x", 'time: missing unit in duration "5"'],
		["HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"],
		["HEALTHCHECK --retries=x CMD x", 'strconv.ParseInt: parsing "x": invalid syntax'],
		["ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"],
		["ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"],
		["RUN --network=lan x", 'invalid network mode "lan"'],
		["RUN --security=x y", 'security "x" is not valid'],
		["RUN --mount=from=$x y", "'from' doesn't support variable expansion, define alias stage instead"],
		[
			'RUN --mount=a\\"b y',
			'failed to parse csv mounts: parse error on line 1, column 2: bare " in non-quoted-field',
		],
		["RUN --mount= y", "failed to parse csv mounts: EOF"],
		["RUN --device=a,b y", "invalid field 'b' must be a key=value pair"],
	] as const) {
		assert.equal(failure(`FROM a\n${line}`), `dockerfile parse error on line 2: ${message}`, line);
	}
	assert.equal(failure("RUN x"), "no build stage in current context");
});

test("expandInstruction expands the fields that BuildKit expands", () => {
	const copy = expanded("COPY --from=$a --chown=$a --exclude=$a $a <<E <<'F' ${a}2\n'$a'\nE\n$a\nF", "copy");
	assert.deepEqual(
		[copy.from, copy.chown, copy.exclude, copy.sources, copy.destination],
		["$a", "one", ["$a"], ["one"], "one2"],
	);
	assert.deepEqual(
		copy.documents.map(({ content }) => content),
		["'one'\n", "$a\n"],
	);
	assert.deepEqual(expanded('ENV $a="$a b"', "env").pairs, [{ key: "one", value: "one b", legacy: false }]);
	assert.deepEqual(
		expanded("EXPOSE $ports 70", "expose").ports,
		["80", "90", "70"].toSorted().slice(1).concat("70"),
	);
	assert.equal(expanded("RUN echo $a", "run").command.words[0], "echo $a");
	assert.equal(expanded("ARG x=$a", "arg").args[0]?.value, "$a");
});

test("expandInstruction reads the mounts of RUN", () => {
	const run = expanded(
		"RUN --mount=type=cache,target=/$a,sharing=locked,uid=1,mode=0750 --mount=type=tmpfs,dst=/t,size=1.5g --mount=type=secret,id=$a,required,env=X --mount=from=s,rw,src=/x,target=y x",
		"run",
	);
	const defaults = {
		from: "",
		source: "",
		target: "",
		readOnly: false,
		sizeLimit: 0,
		id: "",
		sharing: undefined,
		required: false,
		env: undefined,
		mode: undefined,
		uid: undefined,
		gid: undefined,
	};
	assert.deepEqual(run.mounts, [
		{ ...defaults, type: "cache", target: "/one", sharing: "locked", uid: 1, mode: 0o750 },
		{ ...defaults, type: "tmpfs", target: "/t", sizeLimit: 1.5 * 2 ** 30 },
		{ ...defaults, type: "secret", id: "one", required: true, env: "X", readOnly: true },
		{ ...defaults, type: "bind", from: "s", source: "/x", target: "y" },
	]);
	for (const [mount, message] of [
		["type=secrt", 'unsupported mount type "secrt" (did you mean secret?)'],
		["traget=x", "unexpected key 'traget' in 'traget=x' (did you mean target?)"],
		["target", "invalid field 'target' must be a key=value pair"],
		["size=1,type=tmpfs", "unexpected key 'size' for mount type 'bind'"],
		["type=tmpfs,size=x", "invalid value for size: x"],
		["mode=0700", 'mode not allowed for "bind" type mounts'],
		["type=cache,mode=9", "invalid value 9 for mode"],
		["type=cache,sharing=none", 'unsupported sharing value "none"'],
		["sharing=shared", "invalid cache sharing set for bind mount"],
		["ro=maybe", "invalid value for ro: maybe"],
		["required", "unexpected key 'required' for mount type 'bind'"],
		["type=secret", "invalid secret mount. one of source, target required"],
		["type=secret,id=a,src=b", "both source and id can't be set"],
		["type=secret,id=a,from=b", "secret mount should not have a from"],
	] as const) {
		assert.throws(() => expanded(`RUN --mount=${mount} x`, "run"), { message }, mount);
	}
});

test("the linter reports what instructions and stages show", () => {
	assert.deepEqual(
		warnings("from alpine AS Context\nRUN a \\\n\n b\nmaintainer x\nFROM a as context\nRun c\n"),
		[
			"NoEmptyContinuation: Empty continuation line (line 4)",
			"StageNameCasing: Stage name 'Context' should be lowercase (line 1)",
			"FromAsCasing: 'AS' and 'from' keywords' casing do not match (line 1)",
			"MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 5)",
			"FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 6)",
			'ReservedStageName: Stage name should not use the same name as reserved stage "context" (line 1)',
			'ReservedStageName: Stage name should not use the same name as reserved stage "context" (line 6)',
			'DuplicateStageName: Duplicate stage name "context", stage names should be unique (line 6)',
			"ConsistentInstructionCasing: Command 'from' should match the case of the command majority (uppercase) (line 1)",
			"ConsistentInstructionCasing: Command 'maintainer' should match the case of the command majority (uppercase) (line 5)",
			"ConsistentInstructionCasing: Command 'Run' should match the case of the command majority (uppercase) (line 7)",
		],
	);
});

test("the linter obeys check options, in comments too", () => {
	const text = "FROM a AS B\n# other\n# check=skip=MaintainerDeprecated\nMAINTAINER x\n# nope\nARG x y\n";
	assert.deepEqual(warnings(text), ["StageNameCasing: Stage name 'B' should be lowercase (line 1)"]);
	assert.deepEqual(warnings(text, "skip=all;experimental=InvalidDefinitionDescription"), [
		"InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>` (line 6)",
	]);
	const lint = new Linter(parseLintConfig("error=true"));
	parse(text, lint);
	assert.equal(lint.error()?.message, "lint violation found for rules: StageNameCasing");
	assert.throws(() => parseLintConfig("skip"), { message: 'invalid check option "skip"' });
	assert.throws(() => parseLintConfig("x=1"), { message: 'invalid check option "x"' });
	assert.throws(() => parseLintConfig("error=2"), {
		message: 'failed to parse check option "error=2": strconv.ParseBool: parsing "2": invalid syntax',
	});
});
