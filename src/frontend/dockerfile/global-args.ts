import type { SourceFile } from "../../errors/errors.ts";
import { parseReference } from "../../oci/reference.ts";
import type { ArgInstruction, Stage } from "./instructions.ts";
import { invalidDefaultArgInFrom } from "./lint-rules.ts";
import type { Linter } from "./linter.ts";
import type { OutlineArg } from "./outline-capture.ts";
import { withSource } from "./parser.ts";
import { mapEnvironment, processWord, type ShellLexer } from "./shell-words.ts";

export interface GlobalArgs {
	/** In the order of their last assignment. */
	readonly values: ReadonlyMap<string, string>;
	readonly outline: ReadonlyMap<string, OutlineArg>;
}

export interface GlobalArgOptions {
	/** What is there before: the predefined ARGs. */
	readonly predefined: ReadonlyMap<string, string>;
	readonly buildArgs: ReadonlyMap<string, string>;
	readonly lexer: ShellLexer;
	readonly file: SourceFile;
}

/** The ARGs before the first FROM, each expanded with those before it. */
export function evaluateGlobalArgs(
	instructions: readonly ArgInstruction[],
	{ predefined, buildArgs, lexer, file }: GlobalArgOptions,
): GlobalArgs {
	const values = new Map(predefined);
	const outline = new Map<string, OutlineArg>();
	for (const { args, ranges } of instructions) {
		for (const declaration of args) {
			const { key } = declaration;
			let value = buildArgs.get(key);
			let uses = new Set<string>();
			if (value === undefined && declaration.value !== undefined) {
				const expanded = processWord(lexer, declaration.value, mapEnvironment(values));
				if (expanded.error !== undefined) {
					throw withSource(expanded.error, file, ranges);
				}
				value = expanded.text;
				uses = new Set(expanded.matched);
				// An ARG that is made from its own earlier value needs what that was made from.
				if (uses.delete(key)) {
					uses = new Set([...uses, ...(outline.get(key)?.uses ?? [])]);
				}
			}
			if (value !== undefined) {
				values.delete(key);
				values.set(key, value);
			}
			const known = { ...declaration, ...(value === undefined ? {} : { value }) };
			outline.set(key, { declaration: known, value: value ?? "", uses, ranges });
		}
	}
	return { values, outline };
}

/** Reports each FROM whose base is no image name when only the defaults of ARGs are used. */
export function lintDefaultArgs(
	stages: readonly Stage[],
	instructions: readonly ArgInstruction[],
	{ lint, ...options }: Omit<GlobalArgOptions, "buildArgs"> & { readonly lint: Linter },
): void {
	let values: ReadonlyMap<string, string>;
	try {
		({ values } = evaluateGlobalArgs(instructions, { ...options, buildArgs: new Map() }));
	} catch {
		// The conversion itself will fail with the same error.
		return;
	}
	for (const { baseName, ranges } of stages) {
		const expanded = processWord(options.lexer, baseName, mapEnvironment(values));
		if (expanded.error !== undefined) {
			return;
		}
		try {
			parseReference(expanded.text);
		} catch {
			lint.report(invalidDefaultArgInFrom, ranges, baseName);
		}
	}
}
