// biome-ignore-all lint/suspicious/noTemplateCurlyInString: shell words are what is tested
import assert from "node:assert/strict";
import { test } from "node:test";
import { hasCode, SlipwayError } from "../../errors/errors.ts";
import { formatSourceExcerpt } from "../../progress/source-excerpt.ts";
import { detectCheck, detectSyntax } from "./directives.ts";
import { expandInstruction } from "./expand-instruction.ts";
import { lintStages } from "./lint-stages.ts";
import { Linter } from "./linter.ts";
import { parseInstructions } from "./parse-instructions.ts";
import { parseDockerfile } from "./parser.ts";
import { expandWord, mapEnvironment, splitWords } from "./shell-words.ts";

/** `SLIPWAY_FUZZ_INPUTS=1000000 SLIPWAY_FUZZ_SEED=7` runs longer and elsewhere. */
const inputs = Number(process.env["SLIPWAY_FUZZ_INPUTS"] ?? 4000);
const firstSeed = Number(process.env["SLIPWAY_FUZZ_SEED"] ?? 1);

/** Any input may be refused, but only by an error of ours that has a sentence and a drawable place. */
test(`passes one and two survive ${inputs} hostile Dockerfiles`, () => {
	const random = new Random(firstSeed);
	for (let index = 0; index < inputs; index++) {
		const seed = random.state;
		const data = hostileDockerfile(random);
		try {
			run(data);
		} catch (error) {
			const refused = hasCode(error, "invalid-argument") || hasCode(error, "resource-exhausted");
			if (!refused || !(error instanceof SlipwayError) || error.message === "") {
				const shown = JSON.stringify(Buffer.from(data).toString("latin1"));
				assert.fail(
					`input ${index} (seed ${seed}): ${shown}: ${error instanceof Error ? error.stack : error}`,
				);
			}
			for (const detail of error.details) {
				if (detail.kind === "source") {
					formatSourceExcerpt(detail);
				}
			}
		}
	}
});

const env = mapEnvironment(
	new Map([
		["a", "x*y"],
		["b", " p q "],
		["c", ""],
	]),
);

function run(data: Uint8Array): void {
	detectSyntax(data);
	detectCheck(data);
	const parsed = parseDockerfile(data);
	const lint = new Linter();
	const { stages } = parseInstructions(parsed, lint);
	lintStages(stages, lint);
	const lexer = { escapeToken: parsed.escapeToken };
	for (const instruction of stages.flatMap((stage) => stage.instructions)) {
		expandInstruction(instruction, {
			word: (text) => expandWord(lexer, text, env),
			words: (text) => splitWords(lexer, text, env),
			document: (text) => expandWord({ escapeToken: "\\", skipProcessQuotes: true }, text, env),
		});
	}
}

/** The same numbers on every machine (Numerical Recipes' linear congruential generator). */
class Random {
	state: number;

	constructor(seed: number) {
		this.state = seed;
	}

	below(limit: number): number {
		this.state = (Math.imul(this.state, 1664525) + 1013904223) >>> 0;
		return Math.floor((this.state / 2 ** 32) * limit);
	}

	pick(list: readonly string[]): string {
		return list[this.below(list.length)] ?? "";
	}

	repeat(limit: number, make: () => string): string {
		return Array.from({ length: 1 + this.below(limit) }, make).join("");
	}
}

const pieces = [
	"$a", "${b:-x}", "${c:+", "${a#*", "${a%%?", "${b//", "/", "}", "'", '"', "\\", "`", "$", "{", "=", "--", "<<", "<<-", "EOF",
	"é", "\u00a0", "\u0085", "[", "]", '["a"]', ",", ":", "*", "?", "#", "\0", "\ufeff", "🎉", " ", "\t", "\r", "a", "1",
]; // biome-ignore format: one list
const keywords = [
	"FROM", "RUN", "COPY", "ADD", "ENV", "LABEL", "ARG", "CMD", "ENTRYPOINT", "EXPOSE", "USER", "WORKDIR", "VOLUME",
	"STOPSIGNAL", "SHELL", "HEALTHCHECK", "MAINTAINER", "ONBUILD", "ONBUILD ONBUILD", "onbuild run", "Froom", "",
]; // biome-ignore format: one list
const flags = [
	"--from=x", "--chown=$a", "--link", "--exclude=", "--mount=type=cache,target=$a", "--mount=type=tmpfs,size=1m",
	'--mount="a', "--mount=type=secret,id=a,required", "--device=a,b=c", "--interval=1h", "--retries=9", "--platform=$a",
	"--unpack=no", "--", "--é='x",
]; // biome-ignore format: one list
const rests = [
	"a b", "a=b c='d", '["a", "b"]', "[1]", "CMD x", "NONE", "<<EOF /x", "<<-'E' cat", "alpine AS b", "80/tcp ${b}", "k v w",
]; // biome-ignore format: one list
const ends = [
	"\n",
	"\n",
	"\n",
	"\r\n",
	"\\\n",
	"`\n",
	"\n\n",
	"\\\n\n",
	"\nEOF\n",
	"\n\tE\n",
	"\n# check=skip=all\n",
	"",
];
const heads = [
	"# escape=`\n",
	"# syntax=x\n",
	"#!/x\n",
	"\ufeff",
	"# check=error=true;skip=A\n",
	"// syntax=y\n",
	'{"syntax":"z"}\n',
];

function hostileDockerfile(random: Random): Uint8Array {
	const word = (): string => random.repeat(8, () => random.pick(pieces));
	const instruction = (): string => {
		const flag = random.below(3) === 0 ? `${random.pick(flags)} ` : "";
		const rest = random.below(2) === 0 ? random.pick(rests) : word();
		return `${random.pick(keywords)} ${flag}${rest}${random.below(3) === 0 ? word() : ""}${random.pick(ends)}`;
	};
	const head = random.below(3) === 0 ? random.pick(heads) : "";
	const from = random.below(5) === 0 ? "" : "FROM a\n";
	const bytes = Buffer.from(head + from + random.repeat(5, instruction));
	for (let change = random.below(6) - 2; change > 0 && bytes.length > 0; change--) {
		bytes[random.below(bytes.length)] = random.below(256);
	}
	return bytes;
}
