import { quoteGo } from "../../oci/go-quote.ts";

/**
 * The rules of the Dockerfile linter as data: texts are BuildKit's, because clients show and filter by them. Rules
 * that need no more than the instructions are checked in passes one and two, the others by the converter.
 */
export interface LintRule<Values extends readonly string[]> {
	readonly name: string;
	readonly description: string;
	readonly url?: string;
	/** Off unless `experimental=` names it. */
	readonly experimental?: boolean;
	readonly format: (...values: Values) => string;
}

function rule<Values extends readonly string[]>(
	name: string,
	description: string,
	format: (...values: Values) => string,
): LintRule<Values> {
	const page = name.replace(/(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])/g, "-").toLowerCase();
	return { name, description, url: `https://docs.docker.com/go/dockerfile/rule/${page}/`, format };
}

function didYouMean(suggestion: string): string {
	return suggestion === "" ? "" : ` (did you mean ${suggestion}?)`;
}

export const stageNameCasing: LintRule<[stageName: string]> = rule(
	"StageNameCasing",
	"Stage names should be lowercase",
	(stageName) => `Stage name '${stageName}' should be lowercase`,
);

export const fromAsCasing: LintRule<[from: string, as: string]> = rule(
	"FromAsCasing",
	"The 'as' keyword should match the case of the 'from' keyword",
	(from, as) => `'${as}' and '${from}' keywords' casing do not match`,
);

export const noEmptyContinuation: LintRule<[]> = rule(
	"NoEmptyContinuation",
	"Empty continuation lines will become errors in a future release",
	() => "Empty continuation line",
);

export const consistentInstructionCasing: LintRule<[command: string, casing: "lowercase" | "uppercase"]> =
	rule(
		"ConsistentInstructionCasing",
		"All commands within the Dockerfile should use the same casing (either upper or lower)",
		(command, casing) => `Command '${command}' should match the case of the command majority (${casing})`,
	);

export const duplicateStageName: LintRule<[stageName: string]> = rule(
	"DuplicateStageName",
	"Stage names should be unique",
	(stageName) => `Duplicate stage name ${quoteGo(stageName)}, stage names should be unique`,
);

export const reservedStageName: LintRule<[stageName: string]> = rule(
	"ReservedStageName",
	"Reserved words should not be used as stage names",
	(stageName) => `Stage name should not use the same name as reserved stage ${quoteGo(stageName)}`,
);

export const jsonArgsRecommended: LintRule<[instruction: string]> = rule(
	"JSONArgsRecommended",
	"JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
	(instruction) =>
		`JSON arguments recommended for ${instruction} to prevent unintended behavior related to OS signals`,
);

export const maintainerDeprecated: LintRule<[]> = rule(
	"MaintainerDeprecated",
	"The MAINTAINER instruction is deprecated, use a label instead to define an image author",
	() => "Maintainer instruction is deprecated in favor of using label",
);

/** `suggestion` is empty for none. */
export const undefinedArgInFrom: LintRule<[arg: string, suggestion: string]> = rule(
	"UndefinedArgInFrom",
	"FROM command must use declared ARGs",
	(arg, suggestion) => `FROM argument '${arg}' is not declared${didYouMean(suggestion)}`,
);

export const workdirRelativePath: LintRule<[path: string]> = rule(
	"WorkdirRelativePath",
	"Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
	(path) => `Relative workdir ${quoteGo(path)} can have unexpected results if the base image changes`,
);

/** `suggestion` is empty for none. */
export const undefinedVar: LintRule<[variable: string, suggestion: string]> = rule(
	"UndefinedVar",
	"Variables should be defined before their use",
	(variable, suggestion) =>
		`Usage of undefined variable '$${variable}'${didYouMean(suggestion === "" ? "" : `$${suggestion}`)}`,
);

/** Reported at the earlier instruction, the one that has no effect. */
export const multipleInstructionsDisallowed: LintRule<[instruction: string]> = rule(
	"MultipleInstructionsDisallowed",
	"Multiple instructions of the same type should not be used in the same stage",
	(instruction) =>
		`Multiple ${instruction} instructions should not be used in the same stage because only the last one will be used`,
);

export const legacyKeyValueFormat: LintRule<[instruction: string]> = rule(
	"LegacyKeyValueFormat",
	"Legacy key/value format with whitespace separator should not be used",
	(instruction) =>
		`"${instruction} key=value" should be used instead of legacy "${instruction} key value" format`,
);

export const invalidBaseImagePlatform: LintRule<[image: string, expected: string, actual: string]> = {
	name: "InvalidBaseImagePlatform",
	description: "Base image platform does not match expected target platform",
	format: (image, expected, actual) =>
		`Base image ${image} was pulled with platform ${quoteGo(actual)}, expected ${quoteGo(expected)} for current build`,
};

export const redundantTargetPlatform: LintRule<[platform: string]> = rule(
	"RedundantTargetPlatform",
	"Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
	(platform) =>
		`Setting platform to predefined ${platform} in FROM is redundant as this is the default behavior`,
);

export const secretsUsedInArgOrEnv: LintRule<[instruction: "ARG" | "ENV", key: string]> = rule(
	"SecretsUsedInArgOrEnv",
	"Sensitive data should not be used in the ARG or ENV commands",
	(instruction, key) =>
		`Do not use ARG or ENV instructions for sensitive data (${instruction} ${quoteGo(key)})`,
);

export const invalidDefaultArgInFrom: LintRule<[baseName: string]> = rule(
	"InvalidDefaultArgInFrom",
	"Default value for global ARG results in an empty or invalid base image name",
	(baseName) => `Default value for ARG ${baseName} results in empty or invalid base image name`,
);

export const fromPlatformFlagConstDisallowed: LintRule<[platform: string]> = rule(
	"FromPlatformFlagConstDisallowed",
	"FROM --platform flag should not use a constant value",
	(platform) => `FROM --platform flag should not use constant value ${quoteGo(platform)}`,
);

export const copyIgnoredFile: LintRule<[command: "Copy" | "Add", file: string]> = rule(
	"CopyIgnoredFile",
	"Attempting to Copy file that is excluded by .dockerignore",
	(command, file) => `Attempting to ${command} file ${quoteGo(file)} that is excluded by .dockerignore`,
);

export const invalidDefinitionDescription: LintRule<[instruction: "ARG" | "FROM", name: string]> = {
	...rule(
		"InvalidDefinitionDescription",
		"Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
		(instruction: "ARG" | "FROM", name: string) =>
			`Comment for ${instruction} should follow the format: \`# ${name} <description>\``,
	),
	experimental: true,
};

export const exposeProtoCasing: LintRule<[port: string]> = rule(
	"ExposeProtoCasing",
	"Protocol in EXPOSE instruction should be lowercase",
	(port) => `Defined protocol '${port}' in EXPOSE instruction should be lowercase`,
);

export const exposeInvalidFormat: LintRule<[port: string]> = rule(
	"ExposeInvalidFormat",
	"IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
	(port) => `EXPOSE instruction should not define an IP address or host-port mapping, found '${port}'`,
);

/** True for a name such as `API_KEY` or `github_token`, unless it also says `public`, `file` or `version`. */
export function isSecretName(name: string): boolean {
	const secret =
		/(?:_|^)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)/iu;
	return secret.test(name) && !/(?:_|^)(?:public|file|version)(?:_|$)/iu.test(name);
}
