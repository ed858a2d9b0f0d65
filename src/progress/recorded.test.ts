import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { parseDigest } from "../oci/digest.ts";
import { goTimeToMs, parseGoTime } from "../oci/go-time.ts";
import { createDisplay, type DisplayOptions } from "./display.ts";
import type { ProgressEvent } from "./progress.ts";
import { formatSolveStatus } from "./raw-json.ts";

// corpus/*.jsonl was recorded with `buildctl build --progress=rawjson`; `at` is the time at which each line is taken
// in, a line without status is a tick. The texts are what BuildKit's own progressui made of it with the same clock
// (counts of the tty heading with each step counted once: BuildKit counts members of progress groups twice).

interface Line {
	readonly at: number;
	readonly status?: RawStatus;
}

interface RawStatus {
	readonly vertexes?: readonly RawVertex[];
	readonly statuses?: readonly Readonly<Record<string, never>>[];
	readonly logs?: readonly { vertex: string; stream: 1 | 2; data: string; timestamp: string }[];
	readonly warnings?: readonly RawWarning[];
}

interface RawVertex {
	readonly digest: string;
	readonly inputs?: readonly string[];
	readonly name: string;
	readonly started?: string;
	readonly completed?: string;
	readonly cached?: boolean;
	readonly error?: string;
	readonly progressGroup?: { readonly id: string; readonly name: string; readonly weak?: boolean };
}

interface RawWarning {
	readonly vertex: string;
	readonly level: number;
	readonly short: string;
	readonly detail: readonly string[];
	readonly url: string;
	readonly sourceInfo: { readonly filename: string; readonly data: string; readonly language: string };
	readonly range: readonly Readonly<
		Record<"start" | "end", { readonly line?: number; readonly character?: number }>
	>[];
}

const ms = (text: string): number => goTimeToMs(parseGoTime(text));
const text = (base64: string): string => Buffer.from(base64, "base64").toString();

/** Times as numbers, keys without a value left out. */
function times(record: Readonly<Record<string, string | undefined>>): Record<string, number> {
	const present = Object.entries(record).filter((entry): entry is [string, string] => entry[1] !== undefined);
	return Object.fromEntries(present.map(([key, value]) => [key, ms(value)]));
}

function vertexEvent({ started, completed, error, progressGroup, ...vertex }: RawVertex): ProgressEvent {
	return {
		kind: "vertex",
		vertex: {
			digest: parseDigest(vertex.digest),
			inputs: (vertex.inputs ?? []).map(parseDigest),
			name: vertex.name,
			cached: vertex.cached ?? false,
			...times({ started, completed }),
			...(error === undefined ? {} : { error }),
			...(progressGroup === undefined ? {} : { progressGroup: { weak: false, ...progressGroup } }),
		},
	};
}

function warningEvent({ vertex, level, short, detail, url, sourceInfo, range }: RawWarning): ProgressEvent {
	const position = (at: { readonly line?: number; readonly character?: number }) => ({
		line: at.line ?? 0,
		character: at.character ?? 0,
	});
	return {
		kind: "warning",
		warning: {
			vertex: parseDigest(vertex),
			level,
			short: text(short),
			detail: detail.map(text),
			url,
			source: { ...sourceInfo, data: Buffer.from(sourceInfo.data, "base64") },
			ranges: range.map(({ start, end }) => ({ start: position(start), end: position(end) })),
		},
	};
}

function toEvents(status: RawStatus): ProgressEvent[] {
	const { vertexes = [], statuses = [], logs = [], warnings = [] } = status;
	return [
		...vertexes.map(vertexEvent),
		...statuses.map(({ timestamp, started, completed, ...rest }): ProgressEvent => {
			const base = { name: "", total: 0, current: 0, id: "", vertex: parseDigest(rest["vertex"] ?? "") };
			return {
				kind: "status",
				status: { ...base, ...rest, timestamp: 0, ...times({ timestamp, started, completed }) },
			};
		}),
		...logs.map(({ vertex, stream, data, timestamp }): ProgressEvent => {
			const log = {
				vertex: parseDigest(vertex),
				stream,
				data: Buffer.from(data, "base64"),
				timestamp: ms(timestamp),
			};
			return { kind: "log", log };
		}),
		...warnings.map(warningEvent),
	];
}

const read = (name: string): string => readFileSync(new URL(`corpus/${name}`, import.meta.url), "utf8");

const readLines = (name: string): readonly Line[] =>
	read(`${name}.jsonl`)
		.trim()
		.split("\n")
		.map((line) => JSON.parse(line) as Line);

async function replay(name: string, options: Omit<DisplayOptions, "out">): Promise<string> {
	let written = "";
	let now = 0;
	let tick = (): void => {};
	const display = createDisplay({
		...options,
		out: { write: (piece) => (written += piece), isTTY: true, columns: 100, rows: 30 },
		now: () => now,
		ticker: {
			start: (_, callback) => {
				tick = callback;
				return { reset: () => {}, stop: () => {} };
			},
		},
	});
	for (const { at, status } of readLines(name)) {
		now = at;
		if (status === undefined) {
			tick();
		} else {
			for (const event of toEvents(status)) {
				display.write(event);
			}
			await Promise.resolve();
		}
	}
	display.end();
	return written;
}

for (const name of ["build", "cached", "fail", "multi"]) {
	test(`plain: recorded build "${name}" gives BuildKit's lines`, async () => {
		assert.equal(
			await replay(name, { mode: "plain", description: "building with a test" }),
			read(`${name}.plain.txt`),
		);
	});

	test(`rawjson: recorded build "${name}" comes out as it went in`, async () => {
		// Our times have microseconds; a nanosecond text may be rounded to its neighbour.
		const coarse = (json: string): string => json.replace(/:(\d\d)\.\d+Z/g, ":$1Z");
		const lines = read(`${name}.jsonl`).match(/(?<="status":).*(?=\}$)/gm) ?? [];
		const output = await replay(name, { mode: "rawjson" });
		assert.deepEqual(coarse(output).trimEnd().split("\n"), lines.map(coarse));
	});
}

for (const name of ["build", "fail"]) {
	test(`tty: recorded build "${name}" gives BuildKit's screen`, async () => {
		const output = await replay(name, { mode: "tty", consoleDescription: "test" });
		assert.equal(output, read(`${name}.tty.txt`));
	});
}

test("formatSolveStatus: nothing to say", () => {
	assert.equal(formatSolveStatus([]), "{}");
});
