import { statSync } from "node:fs";
import { resolve } from "node:path";
import type { TypeAndAttrs } from "../../client/client.ts";
import type { ContentReader } from "../../content/content.ts";
import { openOciLayout } from "../../content/oci-layout-reader.ts";
import type { Logger } from "../../daemon/logger.ts";
import { SlipwayError, wrap } from "../../errors/errors.ts";
import { csvFields } from "../../oci/csv-fields.ts";
import { layoutOutput } from "../../session/layout-output.ts";
import { directoryOutput, fileOutput } from "../../session/outputs.ts";
import type { SessionOutput } from "../../session/session.ts";
import { parseTypeAndAttrs } from "../flags.ts";
import { stdoutOutput } from "../output-plan.ts";
import type { Terminal } from "../terminal.ts";

/** The values of `buildctl build`'s flags, with the messages of BuildKit's client. All throw `invalid-argument`. */

export interface OutputEntry extends TypeAndAttrs {
	readonly output: SessionOutput | undefined;
}

export function parseOutput(text: string, terminal: Terminal): OutputEntry {
	const { type, attrs } = typeAndAttrs(text, "--output");
	if (attrs["output"] !== undefined) {
		const value = attrs["output"];
		throw invalid(`output=${value} not supported for --output, you meant dest=${value}?`);
	}
	const { dest = "", ...others } = attrs;
	try {
		const output = destination(type, dest, attrs, terminal);
		return { type, attrs: output === undefined ? attrs : others, output };
	} catch (thrown) {
		throw wrap(thrown, "invalid output option: output");
	}
}

function destination(
	type: string,
	dest: string,
	attrs: Readonly<Record<string, string>>,
	terminal: Terminal,
): SessionOutput | undefined {
	const isArchive = type === "oci" || type === "docker";
	const asDirectory = isArchive && /^(?:0|f|false)$/i.test(attrs["tar"] ?? "");
	if (type === "local" || asDirectory) {
		if (dest === "") {
			throw invalid(`output directory is required for ${type} exporter`);
		}
		const path = resolve(terminal.cwd, dest);
		return asDirectory
			? layoutOutput(path)
			: directoryOutput(path, attrs["mode"] === "delete" ? "delete" : "copy");
	}
	if (isArchive || type === "tar") {
		if (dest !== "" && dest !== "-") {
			const path = resolve(terminal.cwd, dest);
			if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) {
				throw invalid("destination file is a directory");
			}
			return fileOutput(path);
		}
		if (terminal.stdout.isTTY === true) {
			throw invalid(`output file is required for ${type} exporter. refusing to write to console`);
		}
		return stdoutOutput(terminal.stdout);
	}
	if (dest !== "") {
		throw invalid(`output ${dest} is not supported by ${type} exporter`);
	}
	return undefined;
}

function typeAndAttrs(text: string, flag: string): TypeAndAttrs {
	const { type, attrs } = parseTypeAndAttrs(csvFields(text));
	if (type === "") {
		throw invalid(`${flag} requires type=<type>`);
	}
	return { type, attrs };
}

/** `--export-cache` and `--import-cache` as `planCaches` reads them. What names no type is the name of an image, as in BuildKit's first years. */
export function cacheOption(flag: "--export-cache" | "--import-cache", text: string, logger: Logger): string {
	const isExport = flag === "--export-cache";
	const mode = isExport ? ["mode=min"] : [];
	if (!text.includes("type=")) {
		logger.log(
			"warning",
			`${flag} <ref> is deprecated. Please use ${flag} type=registry,ref=<ref>,<opt>=<optval>[,<opt>=<optval>] instead${isExport ? "" : "."}`,
		);
		return csvLine(["type=registry", `ref=${text}`, ...mode]);
	}
	const { type, attrs } = typeAndAttrs(text, flag);
	const given = Object.entries(attrs).map(([key, value]) => `${key}=${value}`);
	return csvLine([`type=${type}`, ...given, ...(attrs["mode"] === undefined ? mode : [])]);
}

function csvLine(fields: readonly string[]): string {
	return fields.map((field) => (/[",\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field)).join(",");
}

/** `--opt`: a build argument without a value takes that of the environment, as does `SOURCE_DATE_EPOCH` unasked. */
export function parseOptions(
	texts: readonly string[],
	env: Terminal["env"],
): Readonly<Record<string, string>> {
	const options: Record<string, string> = {};
	const epoch = env["SOURCE_DATE_EPOCH"];
	if (epoch !== undefined) {
		options["build-arg:SOURCE_DATE_EPOCH"] = epoch;
	}
	for (const text of texts) {
		const argument = /^build-arg:([^=]+)$/.exec(text)?.[1];
		if (argument !== undefined) {
			const value = env[argument];
			if (value !== undefined) {
				options[text] = value;
			}
			continue;
		}
		const [key, value] = pair(text, "invalid opt");
		options[key] = value;
	}
	return options;
}

export function parseDirectories(
	texts: readonly string[],
	cwd: string,
): Readonly<Record<string, { readonly path: string }>> {
	return Object.fromEntries(
		texts.map((text) => {
			const [name, value] = pair(text, "invalid local");
			const path = resolve(cwd, value);
			const found = statSync(path, { throwIfNoEntry: false });
			if (found?.isDirectory() !== true) {
				throw invalid(
					`invalid local: ${found === undefined ? `resolve : lstat ${path}: no such file or directory` : `stat ${path}: not a directory`}`,
				);
			}
			return [name, { path }];
		}),
	);
}

export function parseLayouts(texts: readonly string[], cwd: string): Readonly<Record<string, ContentReader>> {
	return Object.fromEntries(
		texts.map((text) => {
			const equals = text.indexOf("=");
			if (equals === -1) {
				throw invalid(
					`invalid oci-layout: oci-layout option must be 'id=path/to/layout', instead had invalid ${text}`,
				);
			}
			return [text.slice(0, equals), openOciLayout(resolve(cwd, text.slice(equals + 1)))];
		}),
	);
}

function pair(text: string, what: string): readonly [string, string] {
	const equals = text.indexOf("=");
	if (equals === -1) {
		throw invalid(`${what}: invalid value ${text}`);
	}
	return [text.slice(0, equals), text.slice(equals + 1)];
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
