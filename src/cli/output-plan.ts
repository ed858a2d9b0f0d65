import { existsSync, realpathSync } from "node:fs";
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import type { ExporterRequest } from "../control/control.ts";
import { SlipwayError } from "../errors/errors.ts";
import { layoutOutput } from "../session/layout-output.ts";
import { descriptorOutput, directoryOutput, fileOutput } from "../session/outputs.ts";
import type { SessionOutput } from "../session/session.ts";
import { parseBool, parseCsvPairs } from "./flags.ts";
import type { Output, Terminal } from "./terminal.ts";

export interface OutputRequest {
	/** `--output`, each a path, `-`, or pairs such as `type=oci,dest=path`. */
	readonly specs: readonly string[];
	/** `--tag`, normalised. */
	readonly tags: readonly string[];
	/** `--push` and `--load`. */
	readonly push: boolean;
	readonly load: boolean;
	/** `--annotation`, as options of exporters (`annotation-options.ts`). */
	readonly annotations: Readonly<Record<string, string>>;
	/** `--iidfile`: the results must have an ID. */
	readonly wantsImageId: boolean;
	/** `--allow buildx.local.delete`: a mirror may be made outside of the current directory. */
	readonly allowDelete: boolean;
	readonly terminal: Pick<Terminal, "stdout" | "cwd" | "env" | "interrupted">;
}

export interface OutputPlan {
	readonly exporters: readonly ExporterRequest[];
	/** By the exporter's index. */
	readonly outputs: readonly (SessionOutput | undefined)[];
}

interface OutputSpec {
	readonly type: string;
	readonly dest: string | undefined;
	readonly attrs: Readonly<Record<string, string>>;
}

const types = ["image", "registry", "oci", "docker", "local", "tar", "cacheonly"];

/** Throws `invalid-argument` with buildx's messages. With tags and no output, the image goes to the image store. */
export async function planOutputs(request: OutputRequest): Promise<OutputPlan> {
	const specs = withShorthands(request.specs.map(parseOutput), request);
	if (request.wantsImageId && specs.some(({ type }) => type === "local" || type === "tar")) {
		throw invalid("local and tar exporters are incompatible with image ID file");
	}
	if (specs.filter((spec) => writesToStdout(spec)).length > 1) {
		throw invalid("multiple outputs configured to write to stdout");
	}
	const exporters: ExporterRequest[] = [];
	const outputs: (SessionOutput | undefined)[] = [];
	for (const spec of specs) {
		if (spec.type === "cacheonly") {
			continue;
		}
		const attrs = attrsOf(spec, request);
		if (isLoaded(spec)) {
			const { loadOutput } = await import("./load-output.ts");
			const { type, output } = await loadOutput({
				env: request.terminal.env,
				context: spec.attrs["context"],
				signal: request.terminal.interrupted,
			});
			const { context: _, ...others } = attrs;
			exporters.push({ type, attrs: others });
			outputs.push(output);
		} else {
			exporters.push({ type: spec.type, attrs });
			outputs.push(outputOf(spec, request));
		}
	}
	return { exporters, outputs };
}

/** `--push` and `--load` add an output, or say something about those that are there. */
function withShorthands(
	given: readonly OutputSpec[],
	{ push, load, tags }: OutputRequest,
): readonly OutputSpec[] {
	let specs = given.map(asImage);
	if (push) {
		specs = specs.some(({ type }) => type === "image")
			? specs.map((spec) => (spec.type === "image" ? pushed(spec) : spec))
			: [...specs, pushed({ type: "image", dest: undefined, attrs: {} })];
	}
	if (load && !specs.some(isLoaded)) {
		specs = [...specs, { type: "docker", dest: undefined, attrs: {} }];
	}
	return specs.length === 0 && tags.length > 0 ? [{ type: "image", dest: undefined, attrs: {} }] : specs;
}

/** `registry` is an image that is pushed. */
function asImage(spec: OutputSpec): OutputSpec {
	return spec.type === "registry" ? pushed({ ...spec, type: "image" }) : spec;
}

function pushed(spec: OutputSpec): OutputSpec {
	return { ...spec, attrs: { unpack: "false", ...spec.attrs, push: "true" } };
}

/** The docker output without a file goes into a running engine. */
function isLoaded({ type, dest, attrs }: OutputSpec): boolean {
	return type === "docker" && (dest === undefined || dest === "") && isTar(attrs);
}

function writesToStdout({ type, dest, attrs }: OutputSpec): boolean {
	const isStream = type === "tar" || ((type === "oci" || type === "docker") && isTar(attrs));
	return isStream && (dest === "-" || (dest ?? "") === "") && type !== "docker";
}

/** What cannot be read counts as true, as in buildx. */
function isTar(attrs: Readonly<Record<string, string>>): boolean {
	return !["0", "f", "F", "false", "FALSE", "False"].includes(attrs["tar"] ?? "");
}

function parseOutput(text: string): OutputSpec {
	if (text === "-") {
		return { type: "tar", dest: "-", attrs: {} };
	}
	const pairs = parseCsvPairs(text);
	if (pairs.length === 1 && pairs[0]?.[1] === undefined) {
		return { type: "local", dest: text, attrs: {} };
	}
	const attrs: Record<string, string> = {};
	for (const [key, value] of pairs) {
		if (value === undefined) {
			throw invalid(
				`invalid value ${JSON.stringify(key)} in --output ${JSON.stringify(text)}: use key=value`,
			);
		}
		attrs[key.toLowerCase()] = value;
	}
	const { type, dest, ...rest } = attrs;
	if (type === undefined) {
		throw invalid(`type is required for output: --output ${JSON.stringify(text)}`);
	}
	if (!types.includes(type)) {
		throw invalid(`unknown output type ${JSON.stringify(type)}: use one of ${types.join(", ")}`);
	}
	return { type, dest, attrs: rest };
}

function attrsOf(spec: OutputSpec, { tags, annotations }: OutputRequest): Readonly<Record<string, string>> {
	const isImage = spec.type === "image" || spec.type === "oci" || spec.type === "docker";
	if (!isImage) {
		return spec.attrs;
	}
	const attrs: Readonly<Record<string, string>> = {
		...spec.attrs,
		...annotations,
		...(tags.length === 0 ? {} : { name: tags.join(",") }),
	};
	const isPushed = spec.type === "image" && parseBool("output", attrs["push"] || "false") === "true";
	if (isPushed && (attrs["name"] ?? "") === "") {
		throw invalid("tag is needed when pushing to registry");
	}
	return attrs;
}

function outputOf(spec: OutputSpec, request: OutputRequest): SessionOutput | undefined {
	const { type, dest } = spec;
	switch (type) {
		case "image":
			if (dest !== undefined) {
				throw invalid("dest is not used by the image output: it goes to the image store");
			}
			return undefined;
		case "local":
			if (dest === undefined || dest === "") {
				throw invalid("dest is required for local exporter");
			}
			if (dest === "-") {
				throw invalid("dest cannot be stdout for local exporter");
			}
			return localOutput(dest, spec, request);
		default:
			return streamOrStore(spec, request);
	}
}

function localOutput(dest: string, { attrs }: OutputSpec, request: OutputRequest): SessionOutput {
	const path = resolve(request.terminal.cwd, dest);
	if (attrs["mode"]?.trim().toLowerCase() !== "delete") {
		return directoryOutput(path, "copy");
	}
	// A mirror deletes what the result does not have: a wrong path must not cost a home directory.
	const inside = relative(existingPath(request.terminal.cwd), existingPath(path));
	const isInside = inside !== "" && inside !== ".." && !inside.startsWith(`..${sep}`) && !isAbsolute(inside);
	if (!isInside && !request.allowDelete) {
		throw invalid(
			`local output mode=delete for destination ${JSON.stringify(dest)} requires --allow=buildx.local.delete`,
		);
	}
	return directoryOutput(path, "delete");
}

/** The path with all links in its existing part resolved. */
function existingPath(path: string): string {
	const parent = dirname(path);
	return existsSync(path) || parent === path
		? realpathSync(path)
		: join(existingPath(parent), basename(path));
}

function streamOrStore({ type, dest, attrs }: OutputSpec, request: OutputRequest): SessionOutput {
	if (type !== "tar" && !isTar(attrs)) {
		if (dest === undefined || dest === "") {
			throw invalid(`dest is required for ${type} exporter`);
		}
		if (dest === "-") {
			throw invalid(`dest cannot be stdout for ${type} exporter`);
		}
		return layoutOutput(resolve(request.terminal.cwd, dest));
	}
	if (dest === undefined || dest === "" || dest === "-") {
		if (request.terminal.stdout.isTTY === true) {
			throw invalid(`dest file is required for ${type} exporter. refusing to write to console`);
		}
		return stdoutOutput(request.terminal.stdout);
	}
	return fileOutput(resolve(request.terminal.cwd, dest));
}

/** Straight to the descriptor where this process has it. */
export function stdoutOutput(stdout: Output): SessionOutput {
	if (stdout.fd !== undefined) {
		return descriptorOutput(stdout.fd);
	}
	return {
		kind: "stream",
		async open() {
			return {
				fd: undefined,
				write: (chunk) => stdout.writeBytes(chunk),
				async close() {},
				async abort() {},
			};
		},
	};
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
