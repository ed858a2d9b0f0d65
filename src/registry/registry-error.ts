import { collect } from "../content/bytes.ts";
import { type ErrorCode, redactUrl, SlipwayError } from "../errors/errors.ts";
import type { TransportResponse } from "./transport.ts";

/** What an error message says about where it happened. */
export interface Place {
	/** Host of the registry as the user writes it. */
	readonly domain: string;
	/** Path of the repository. */
	readonly path: string;
	readonly action: "pull" | "push";
}

const statusTexts: Readonly<Record<number, string>> = {
	400: "Bad Request",
	401: "Unauthorized",
	403: "Forbidden",
	404: "Not Found",
	405: "Method Not Allowed",
	408: "Request Timeout",
	413: "Request Entity Too Large",
	416: "Requested Range Not Satisfiable",
	429: "Too Many Requests",
	500: "Internal Server Error",
	502: "Bad Gateway",
	503: "Service Unavailable",
	504: "Gateway Timeout",
};

const statusCodes: Readonly<Record<number, ErrorCode>> = {
	400: "invalid-argument",
	401: "unauthenticated",
	403: "permission-denied",
	404: "not-found",
	408: "deadline-exceeded",
	413: "resource-exhausted",
	429: "resource-exhausted",
};

const maxErrorBytes = 64_000;
const maxMessageLength = 500;

/** The error for an answer that was not wanted; reads its body for what the registry says. */
export async function unexpectedStatus(
	response: TransportResponse,
	method: string,
	place: Place,
): Promise<SlipwayError> {
	const { status } = response;
	const said = await serverMessage(response);
	const text = statusTexts[status];
	const parts = [
		`unexpected status from ${method} request to ${redactUrl(response.url.href)}: ${status}${text === undefined ? "" : ` ${text}`}`,
		said,
		advice(status, place),
	];
	return new SlipwayError(
		statusCodes[status] ?? (status >= 500 ? "unavailable" : "unknown"),
		parts.filter((part) => part !== undefined).join(": "),
	);
}

function advice(status: number, { domain, path, action }: Place): string | undefined {
	switch (status) {
		case 401:
			return `registry ${domain} wants a login for repository ${path}; run "docker login ${domain}"`;
		case 403:
			return `registry ${domain} does not let this login ${action} repository ${path}; check its permissions`;
		case 429:
			return `registry ${domain} limits requests; log in or try again later`;
		case 413:
			return `registry ${domain} does not take uploads of this size; check the limits of a proxy in front of it`;
		default:
			return status >= 500 ? `registry ${domain} failed; try again later` : undefined;
	}
}

/** The errors that the distribution spec puts in the body, or the start of a text that looks like one. */
async function serverMessage(response: TransportResponse): Promise<string | undefined> {
	let body: Uint8Array;
	try {
		body = await collect(response.body, { maxBytes: maxErrorBytes, what: "error response" });
	} catch {
		return undefined;
	}
	try {
		const { errors } = JSON.parse(Buffer.from(body).toString()) as { errors?: unknown };
		if (Array.isArray(errors)) {
			const messages = errors.map((each: { code?: unknown; message?: unknown }) =>
				[each?.code, each?.message]
					.filter((part) => typeof part === "string" && part !== "")
					.map((part, i) => (i === 0 ? String(part).toLowerCase().replaceAll("_", " ") : String(part)))
					.join(": "),
			);
			return printable(messages.filter((message) => message !== "").join(", "));
		}
	} catch {}
	return undefined;
}

/** What a server says is shown to people: no control characters, not endless. */
export function printable(text: string): string | undefined {
	const clean = text.replace(/[\p{C}\s]+/gu, " ").trim();
	if (clean === "") {
		return undefined;
	}
	return clean.length > maxMessageLength ? `${clean.slice(0, maxMessageLength)}…` : clean;
}

/** As BuildKit says that a login was refused or is missing, and then what to do. */
export function accessDenied(serverSaid: string, { domain, path, action }: Place): SlipwayError {
	return new SlipwayError(
		"permission-denied",
		`${action} access denied, repository does not exist or may require authorization: ` +
			`server message: ${printable(serverSaid) ?? "denied"}: authorization failed ` +
			`(registry ${domain}, repository ${path}; check the name, or run "docker login ${domain}")`,
	);
}
