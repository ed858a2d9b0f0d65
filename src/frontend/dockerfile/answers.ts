import { SlipwayError, type SourceRange } from "../../errors/errors.ts";
import { type GoJson, goJson } from "../../oci/go-json.ts";
import type { FrontendResult } from "../frontend.ts";
import { formatTable } from "./tab-table.ts";

/** What can be asked instead of a build (`requestid`); the answers are metadata of a result without a file system. */
export interface Answer {
	readonly json: string;
	/** For people; not every answer has it. */
	readonly text?: string;
	readonly version: string;
	readonly more?: Readonly<Record<string, string>>;
}

export function answerResult({ json, text, version, more = {} }: Answer): FrontendResult {
	const texts = {
		"result.json": json,
		...(text === undefined ? {} : { "result.txt": text }),
		...more,
		version,
	};
	const encoder = new TextEncoder();
	const metadata = Object.fromEntries(
		Object.entries(texts).map(([key, value]) => [key, encoder.encode(value)]),
	);
	return { ref: undefined, refs: new Map(), metadata, attestations: new Map() };
}

/** Indented as Go's `json.MarshalIndent` with two blanks. */
export function answerJson(value: GoJson): string {
	return goJson(value, { indent: "  " });
}

export function unsupportedRequest(name: string): SlipwayError {
	return new SlipwayError("unimplemented", `unsupported request ${name}`);
}

interface RequestDescription {
	readonly name: string;
	readonly version: string;
	readonly description: string;
	readonly opts?: readonly { readonly name: string; readonly description: string }[];
}

/** BuildKit's own list leaves out the requests that came later. */
const described: readonly RequestDescription[] = [
	{
		name: "frontend.outline",
		version: "1.0.0",
		description: "List all parameters current build target supports",
		opts: [{ name: "target", description: "Target build stage" }],
	},
	{
		name: "frontend.targets",
		version: "1.0.0",
		description: "List all targets current build supports",
		opts: [],
	},
	{
		name: "frontend.subrequests.describe",
		version: "1.0.0",
		description: "List available subrequest types",
	},
];

/** `frontend.subrequests.describe`. */
export function describeRequests(): Answer {
	const metadata = ["result.json", "result.txt"].map((name) => ({ name, description: "" }));
	const requests = described.map(({ name, version, description, opts }) => ({
		name,
		version,
		type: "rpc",
		description,
		opts: opts ?? null,
		inputs: null,
		metadata,
		refs: null,
	}));
	const rows = described.map(({ name, version, description }) => [
		name.replace(/^frontend\./, ""),
		version,
		description,
	]);
	const text = formatTable([["NAME", "VERSION", "DESCRIPTION"], ...rows], 1);
	return { json: answerJson(requests), text, version: "1.0.0" };
}

/** A place as protobuf's Go structs become JSON: what is zero is left out. */
export function locationJson(ranges: readonly SourceRange[]): object {
	return ranges.length === 0
		? {}
		: { ranges: ranges.map(({ start, end }) => ({ start: positionJson(start), end: positionJson(end) })) };
}

function positionJson({ line, character }: SourceRange["start"]): object {
	return {
		...(line === 0 ? {} : { line }),
		...(character === 0 ? {} : { character }),
	};
}
