import {
	type ErrorCode,
	type ErrorDetail,
	type Position,
	SlipwayError,
	type SourceFile,
	type SourceRange,
	toError,
} from "../errors/errors.ts";
import type { Any } from "./generated/google/protobuf/any.ts";
import type { Status } from "./generated/google/rpc/status.ts";

/**
 * Errors as gRPC has them. BuildKit's details are JSON (Go's encoding of its messages) in a protobuf Any; the list is from inner
 * to outer. Details that are not known here pass through as `foreign`.
 */

const codeNumbers: Readonly<Record<ErrorCode, number>> = {
	canceled: 1,
	unknown: 2,
	"invalid-argument": 3,
	"deadline-exceeded": 4,
	"not-found": 5,
	"already-exists": 6,
	"permission-denied": 7,
	"resource-exhausted": 8,
	"failed-precondition": 9,
	aborted: 10,
	"out-of-range": 11,
	unimplemented: 12,
	internal: 13,
	unavailable: 14,
	"data-loss": 15,
	unauthenticated: 16,
};

const codes = Object.keys(codeNumbers) as readonly ErrorCode[];

export function codeNumber(code: ErrorCode): number {
	return codeNumbers[code];
}

/** A number that is no code, 0 (which is no error) too, is `unknown`. */
export function codeOfNumber(number: number): ErrorCode {
	return codes[number - 1] ?? "unknown";
}

export function statusOf(thrown: unknown): Status {
	const error = toError(thrown);
	return {
		code: codeNumbers[error.code],
		message: error.message,
		details: error.details.flatMap((detail) => anyOf(detail) ?? []),
	};
}

export function errorOf(status: Status): SlipwayError {
	return new SlipwayError(codeOfNumber(status.code), status.message, {
		details: status.details.map(detailOf),
	});
}

const prefix = "github.com/moby/buildkit/";
const types = {
	vertex: `${prefix}errdefs.Vertex+json`,
	source: `${prefix}errdefs.Source+json`,
	exit: `${prefix}gatewayapi.ExitMessage+json`,
};

/** Undefined for what stays here. */
function anyOf(detail: ErrorDetail): Any | undefined {
	switch (detail.kind) {
		case "vertex":
			return jsonAny(types.vertex, { digest: detail.digest });
		case "source":
			return jsonAny(types.source, {
				info: {
					filename: detail.file.filename || undefined,
					data: base64(excerpt(detail.file.data, detail.ranges)),
					language: detail.file.language || undefined,
				},
				ranges: detail.ranges.map(({ start, end }) => ({ start: sparse(start), end: sparse(end) })),
			});
		case "exit":
			return jsonAny(types.exit, { Code: detail.code || undefined });
		case "errno":
			return undefined;
		case "foreign":
			return { typeUrl: detail.typeUrl, value: detail.value };
	}
}

function base64(bytes: Uint8Array): string | undefined {
	return bytes.length === 0 ? undefined : Buffer.from(bytes).toString("base64");
}

/** Files above this are not sent whole: what holds them is a header. */
const maxSourceBytes = 32 << 10;
/** More than any client draws around a place. */
const linesAround = 20;

/** A long file with the lines emptied that are far from the ranges; the others keep their numbers. */
function excerpt(data: Uint8Array, ranges: readonly SourceRange[]): Uint8Array {
	if (data.length <= maxSourceBytes) {
		return data;
	}
	const lines = Buffer.from(data).toString("latin1").split("\n");
	const kept = lines.map((line, index) =>
		ranges.some(({ start, end }) => index + 1 >= start.line - linesAround && index < end.line + linesAround)
			? line
			: "",
	);
	return Buffer.from(kept.join("\n"), "latin1");
}

function jsonAny(typeUrl: string, value: unknown): Any {
	return { typeUrl, value: Buffer.from(JSON.stringify(value)) };
}

/** Go leaves zeros out. */
function sparse({ line, character }: Position): object {
	return { line: line || undefined, character: character || undefined };
}

function detailOf({ typeUrl, value }: Any): ErrorDetail {
	return knownDetail(typeUrl, value) ?? { kind: "foreign", typeUrl, value };
}

function knownDetail(typeUrl: string, value: Uint8Array): ErrorDetail | undefined {
	if (!Object.values(types).includes(typeUrl)) {
		return undefined;
	}
	const json = parseObject(value);
	if (json === undefined) {
		return undefined;
	}
	switch (typeUrl) {
		case types.vertex:
			return typeof json["digest"] === "string" ? { kind: "vertex", digest: json["digest"] } : undefined;
		case types.source: {
			const file = fileOf(json["info"]);
			return file && { kind: "source", file, ranges: arrayOf(json["ranges"]).map(rangeOf) };
		}
		default:
			return { kind: "exit", code: integerOf(json["Code"]) };
	}
}

function parseObject(bytes: Uint8Array): Readonly<Record<string, unknown>> | undefined {
	try {
		const value: unknown = JSON.parse(Buffer.from(bytes).toString());
		return isObject(value) ? value : undefined;
	} catch {
		return undefined;
	}
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
	return typeof value === "object" && value !== null && !Array.isArray(value);
}

function fileOf(value: unknown): SourceFile | undefined {
	if (!isObject(value)) {
		return undefined;
	}
	const { filename, data, language } = value;
	return {
		filename: typeof filename === "string" ? filename : "",
		data: typeof data === "string" ? Buffer.from(data, "base64") : new Uint8Array(0),
		...(typeof language === "string" ? { language } : {}),
	};
}

function rangeOf(value: unknown): SourceRange {
	const { start, end } = isObject(value) ? value : {};
	return { start: positionOf(start), end: positionOf(end) };
}

function positionOf(value: unknown): Position {
	const { line, character } = isObject(value) ? value : {};
	return { line: integerOf(line), character: integerOf(character) };
}

function integerOf(value: unknown): number {
	return Number.isSafeInteger(value) ? (value as number) : 0;
}

function arrayOf(value: unknown): readonly unknown[] {
	return Array.isArray(value) ? value : [];
}
