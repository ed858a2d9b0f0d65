import { STATUS_CODES } from "node:http";
import { SlipwayError } from "../errors/errors.ts";
import { Status } from "./generated/google/rpc/status.ts";
import type { Metadata } from "./grpc.ts";
import { codeNumber, codeOfNumber, errorOf, statusOf } from "./status.ts";

/** gRPC's headers and trailers, https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md */

type OutgoingHeaders = Record<string, string | readonly string[]>;

/** What belongs to the protocol and not to the call. */
function isReserved(name: string): boolean {
	return (
		name.startsWith(":") ||
		name.startsWith("grpc-") ||
		name === "content-type" ||
		name === "te" ||
		name === "host" ||
		name === "connection"
	);
}

/** From name, value, name, value, …: the form in which nothing is joined. */
export function metadataOf(rawHeaders: readonly string[]): Metadata {
	// No prototype, so that a peer's `__proto__` is a key like any other.
	const metadata: Record<string, string[]> = Object.create(null);
	for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
		const name = rawHeaders[index] as string;
		const value = rawHeaders[index + 1] as string;
		if (!isReserved(name)) {
			const values = metadata[name];
			if (values === undefined) {
				metadata[name] = [value];
			} else {
				values.push(value);
			}
		}
	}
	return metadata;
}

/** The first value of a header that belongs to the protocol. */
export function rawHeader(rawHeaders: readonly string[], name: string): string | undefined {
	for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
		if (rawHeaders[index] === name) {
			return rawHeaders[index + 1];
		}
	}
	return undefined;
}

/** Adds the metadata to headers; names and values that HTTP/2 does not carry are refused, gRPC's own names are left out. */
export function addMetadata(headers: OutgoingHeaders, metadata: Metadata | undefined): void {
	for (const [key, values] of Object.entries(metadata ?? {})) {
		const name = key.toLowerCase();
		if (isReserved(name) || values.length === 0) {
			continue;
		}
		if (!/^[a-z0-9_.-]+$/.test(name)) {
			throw new SlipwayError(
				"internal",
				`header key ${JSON.stringify(key)} contains illegal characters not in [0-9a-z-_.]`,
			);
		}
		for (const value of values) {
			if (!/^[\x20-\x7e]*$/.test(value)) {
				throw new SlipwayError(
					"internal",
					`header key ${JSON.stringify(name)} contains value with non-printable ASCII characters`,
				);
			}
		}
		headers[name] = values;
	}
}

/** The trailers that a call ends with. */
export function statusTrailers(error: SlipwayError | undefined): OutgoingHeaders {
	if (error === undefined) {
		return { "grpc-status": "0" };
	}
	const status = statusOf(error);
	const trailers: OutgoingHeaders = { "grpc-status": String(status.code) };
	if (status.message !== "") {
		trailers["grpc-message"] = cut(encodeMessage(status.message), maxMessageBytes);
	}
	if (status.details.length > 0) {
		const details = base64(Status.encode(status).finish());
		trailers["grpc-status-details-bin"] =
			details.length <= maxDetailsBytes ? details : base64(Status.encode(shortened(status)).finish());
	}
	return trailers;
}

/**
 * nghttp2, and so every peer that runs on Node, breaks the connection over a block of headers of more than nine frames of 16 KB.
 * Only a source detail, which holds a whole Dockerfile, comes near it.
 */
const maxMessageBytes = 32 << 10;
const maxDetailsBytes = 96 << 10;

/** Without the details that are the largest, until the rest fits. */
function shortened(status: Status): Status {
	const details = [...status.details].sort((a, b) => a.value.length - b.value.length);
	let room = (maxDetailsBytes * 3) / 4 - 1024;
	const message = Buffer.from(status.message)
		.subarray(0, room / 4)
		.toString();
	room -= message.length;
	const kept = new Set<unknown>();
	for (const detail of details) {
		room -= detail.value.length + detail.typeUrl.length + 16;
		if (room >= 0) {
			kept.add(detail);
		}
	}
	return { ...status, message, details: status.details.filter((detail) => kept.has(detail)) };
}

/** Not in the middle of an escape. */
function cut(text: string, bytes: number): string {
	return text.length <= bytes ? text : text.slice(0, bytes).replace(/%[0-9A-F]?$/, "");
}

function base64(bytes: Uint8Array): string {
	return Buffer.from(bytes).toString("base64").replace(/=+$/, "");
}

/**
 * The end of a call as its caller sees it: undefined when all is well. `trailers` are those, or the headers when nothing but a
 * status came.
 */
export function readStatus(trailers: readonly string[]): SlipwayError | undefined {
	const text = rawHeader(trailers, "grpc-status");
	if (text === undefined) {
		return new SlipwayError("internal", "server closed the stream without sending trailers");
	}
	if (text === "0") {
		return undefined;
	}
	const code = /^\d{1,9}$/.test(text) ? Number(text) : codeNumber("unknown");
	const message = decodeMessage(rawHeader(trailers, "grpc-message") ?? "");
	const details = rawHeader(trailers, "grpc-status-details-bin");
	if (details !== undefined) {
		try {
			const status = Status.decode(Buffer.from(details, "base64"));
			// grpc-go's clients believe the details as well, if they agree about the code.
			if (status.code === code) {
				return errorOf(status);
			}
		} catch {
			// Damaged details take nothing away from the code and the message.
		}
	}
	return new SlipwayError(codeOfNumber(code), message);
}

/** Of an answer that is not gRPC's. */
export function httpError(status: number, contentType: string | undefined): SlipwayError {
	const code =
		{ 400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14 }[status] ??
		codeNumber("unknown");
	const detail =
		contentType === undefined
			? "transport: missing content-type field"
			: `transport: received unexpected content-type ${JSON.stringify(contentType)}`;
	return new SlipwayError(
		codeOfNumber(code),
		`unexpected HTTP status code received from server: ${status} (${STATUS_CODES[status] ?? ""}); ${detail}`,
	);
}

/** Percent encoding of all but printable ASCII, and of `%`. */
export function encodeMessage(message: string): string {
	if (!/[^\x20-\x7e]|%/.test(message)) {
		return message;
	}
	let text = "";
	for (const byte of Buffer.from(message)) {
		const plain = byte >= 0x20 && byte <= 0x7e && byte !== 0x25;
		text += plain ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
	}
	return text;
}

/** What is no valid escape stays as it is. */
export function decodeMessage(text: string): string {
	if (!text.includes("%")) {
		return text;
	}
	const bytes = Buffer.from(text);
	let length = 0;
	for (let at = 0; at < bytes.length; at++) {
		const hex = bytes[at] === 0x25 ? bytes.toString("latin1", at + 1, at + 3) : "";
		if (/^[0-9a-fA-F]{2}$/.test(hex)) {
			bytes[length++] = Number.parseInt(hex, 16);
			at += 2;
		} else {
			bytes[length++] = bytes[at] as number;
		}
	}
	return bytes.toString("utf8", 0, length);
}

const timeoutUnits: Readonly<Record<string, number>> = {
	H: 3_600_000,
	M: 60_000,
	S: 1000,
	m: 1,
	u: 1e-3,
	n: 1e-6,
};

/** Milliseconds; throws what is no timeout. */
export function parseTimeout(text: string): number {
	const size = text.length;
	if (size < 2) {
		throw malformedTimeout(`transport: timeout string is too short: ${JSON.stringify(text)}`);
	}
	if (size > 9) {
		throw malformedTimeout(`transport: timeout string is too long: ${JSON.stringify(text)}`);
	}
	const unit = timeoutUnits[text.slice(-1)];
	if (unit === undefined) {
		throw malformedTimeout(`transport: timeout unit is not recognized: ${JSON.stringify(text)}`);
	}
	const digits = text.slice(0, -1);
	if (!/^\d+$/.test(digits)) {
		throw malformedTimeout(`strconv.ParseUint: parsing ${JSON.stringify(digits)}: invalid syntax`);
	}
	return Number(digits) * unit;
}

function malformedTimeout(reason: string): SlipwayError {
	return new SlipwayError("internal", `malformed grpc-timeout: ${reason}`);
}

/** At most eight digits and a unit. */
export function formatTimeout(milliseconds: number): string {
	const whole = Math.max(0, Math.ceil(milliseconds));
	if (whole < 1e8) {
		return `${whole}m`;
	}
	const seconds = Math.ceil(whole / 1000);
	return seconds < 1e8 ? `${seconds}S` : `${Math.min(Math.ceil(seconds / 3600), 99_999_999)}H`;
}
