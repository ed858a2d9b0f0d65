import { resolve } from "node:path";
import type { ExporterRequest } from "../control/control.ts";
import { SlipwayError } from "../errors/errors.ts";
import { layoutOutput } from "../session/layout-output.ts";
import { descriptorOutput, directoryOutput, fileOutput } from "../session/outputs.ts";
import type { SessionOutput } from "../session/session.ts";
import { parseCsvPairs } from "./flags.ts";
import type { Output, Terminal } from "./terminal.ts";

export interface OutputRequest {
	/** `--output`, each a path, `-`, or pairs such as `type=oci,dest=path`. */
	readonly specs: readonly string[];
	/** `--tag`, normalised. */
	readonly tags: readonly string[];
	readonly terminal: Pick<Terminal, "stdout" | "cwd">;
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
export function planOutputs(request: OutputRequest): OutputPlan {
	const specs = request.specs.map(parseOutput);
	if (specs.length === 0 && request.tags.length > 0) {
		specs.push({ type: "image", dest: undefined, attrs: {} });
	}
	if (specs.filter((spec) => spec.dest === "-").length > 1) {
		throw new SlipwayError("invalid-argument", "multiple outputs configured to write to stdout");
	}
	const exporters: ExporterRequest[] = [];
	const outputs: (SessionOutput | undefined)[] = [];
	for (const spec of specs) {
		if (spec.type === "cacheonly") {
			continue;
		}
		exporters.push({ type: spec.type, attrs: attrsOf(spec, request.tags) });
		outputs.push(outputOf(spec, request));
	}
	return { exporters, outputs };
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
			throw new SlipwayError(
				"invalid-argument",
				`invalid value ${JSON.stringify(key)} in --output ${JSON.stringify(text)}: use key=value`,
			);
		}
		attrs[key.toLowerCase()] = value;
	}
	const { type, dest, ...rest } = attrs;
	if (type === undefined) {
		throw new SlipwayError(
			"invalid-argument",
			`type is required for output: --output ${JSON.stringify(text)}`,
		);
	}
	if (!types.includes(type)) {
		throw new SlipwayError(
			"invalid-argument",
			`unknown output type ${JSON.stringify(type)}: use one of ${types.join(", ")}`,
		);
	}
	if (type === "registry") {
		throw new SlipwayError(
			"unimplemented",
			"output type registry is not supported yet: write a layout with type=oci,dest=FILE and push that with skopeo",
		);
	}
	return { type, dest, attrs: rest };
}

function attrsOf(spec: OutputSpec, tags: readonly string[]): Readonly<Record<string, string>> {
	const isImage = spec.type === "image" || spec.type === "oci" || spec.type === "docker";
	return isImage && spec.attrs["name"] === undefined && tags.length > 0
		? { ...spec.attrs, name: tags.join(",") }
		: spec.attrs;
}

function outputOf(spec: OutputSpec, request: OutputRequest): SessionOutput | undefined {
	const { type, dest } = spec;
	switch (type) {
		case "image":
			if (dest !== undefined) {
				throw new SlipwayError(
					"invalid-argument",
					"dest is not used by the image output: it goes to the image store",
				);
			}
			return undefined;
		case "local":
			if (dest === undefined || dest === "") {
				throw new SlipwayError("invalid-argument", "dest is required for local exporter");
			}
			if (dest === "-") {
				throw new SlipwayError("invalid-argument", "dest cannot be stdout for local exporter");
			}
			return directoryOutput(
				resolve(request.terminal.cwd, dest),
				spec.attrs["mode"] === "delete" ? "delete" : "copy",
			);
		default:
			return streamOrStore(spec, request);
	}
}

function streamOrStore({ type, dest, attrs }: OutputSpec, request: OutputRequest): SessionOutput {
	if (type !== "tar" && attrs["tar"] === "false") {
		if (dest === undefined || dest === "" || dest === "-") {
			throw new SlipwayError("invalid-argument", `dest is required for ${type} exporter with tar=false`);
		}
		return layoutOutput(resolve(request.terminal.cwd, dest));
	}
	if (dest === undefined || dest === "" || dest === "-") {
		if (request.terminal.stdout.isTTY === true) {
			throw new SlipwayError(
				"invalid-argument",
				`dest file is required for ${type} exporter. refusing to write to console`,
			);
		}
		return stdoutOutput(request.terminal.stdout);
	}
	return fileOutput(resolve(request.terminal.cwd, dest));
}

/** Straight to the descriptor where this process has it. */
function stdoutOutput(stdout: Output): SessionOutput {
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
