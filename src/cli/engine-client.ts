import { type ChildProcess, spawn } from "node:child_process";
import {
	type ClientRequest,
	request as httpRequest,
	type IncomingMessage,
	type RequestOptions,
} from "node:http";
import { Duplex } from "node:stream";
import { SlipwayError, toError, wrap } from "../errors/errors.ts";
import type { EnginePlace } from "./engine-place.ts";

/** Docker's API, as far as loading an image needs it. Podman speaks it too. */
export interface EngineClient {
	/** The answer to a GET as JSON. */
	get(path: string, options: { readonly signal: AbortSignal }): Promise<unknown>;
	/** Sends an archive and reads the engine's messages; throws what they call an error. */
	load(archive: AsyncIterable<Uint8Array>, options: { readonly signal: AbortSignal }): Promise<void>;
}

type ApiPlace = Exclude<EnginePlace, { kind: "program" }>;

const maxAnswerBytes = 64 << 20;
const maxErrorBytes = 64 << 10;

export function createEngineClient(place: ApiPlace): EngineClient {
	return {
		async get(path, { signal }) {
			const response = await send(place, { method: "GET", path }, undefined, signal);
			const text = await textOf(response, maxAnswerBytes);
			checkStatus(place, `GET ${path}`, response, text);
			return parseJson(text, place);
		},
		async load(archive, { signal }) {
			const path = "/images/load?quiet=1";
			const headers = { "content-type": "application/x-tar" };
			const response = await send(place, { method: "POST", path, headers }, archive, signal);
			const text = await textOf(response, maxAnswerBytes);
			checkStatus(place, `POST ${path}`, response, text);
			for (const line of text.split("\n").filter((each) => each.trim() !== "")) {
				const { error } = parseJson(line, place) as { readonly error?: unknown };
				if (typeof error === "string" && error !== "") {
					throw new SlipwayError("unknown", `${place.shown} could not load the image: ${printable(error)}`);
				}
			}
		},
	};
}

async function send(
	place: ApiPlace,
	options: Pick<RequestOptions, "method" | "path" | "headers">,
	body: AsyncIterable<Uint8Array> | undefined,
	signal: AbortSignal,
): Promise<IncomingMessage> {
	if (signal.aborted) {
		throw toError(signal.reason);
	}
	const request = await openRequest(place, options, signal);
	const answered = new Promise<IncomingMessage>((resolve, reject) => {
		request.on("response", resolve);
		request.on("error", (error) => reject(explain(error, place, signal)));
	});
	answered.catch(() => {});
	if (body === undefined) {
		request.end();
		return answered;
	}
	let ended = false;
	const answer = answered.finally(() => {
		ended = true;
	});
	try {
		for await (const chunk of body) {
			// An engine that has seen enough answers before the end.
			if (ended) {
				break;
			}
			if (!request.write(chunk)) {
				await Promise.race([new Promise((resolve) => request.once("drain", resolve)), answer]);
			}
		}
	} catch (thrown) {
		request.destroy();
		throw toError(thrown);
	}
	request.end();
	return answer;
}

async function openRequest(
	place: ApiPlace,
	options: RequestOptions,
	signal: AbortSignal,
): Promise<ClientRequest> {
	const common = { ...options, host: "docker", signal, agent: false as const };
	switch (place.kind) {
		case "socket":
			return httpRequest({ ...common, socketPath: place.path });
		case "tcp": {
			const target = { ...common, host: place.host, port: place.port };
			if (place.tls === undefined) {
				return httpRequest(target);
			}
			const { request } = await import("node:https");
			const { ca, certificate: cert, key, skipVerify } = place.tls;
			return request({
				...target,
				rejectUnauthorized: !skipVerify,
				...(ca === undefined ? {} : { ca }),
				...(cert === undefined ? {} : { cert }),
				...(key === undefined ? {} : { key }),
			});
		}
		case "ssh": {
			const child = spawn(
				"ssh",
				["-o", "ConnectTimeout=30", "-T", ...place.target, "docker system dial-stdio"],
				{
					stdio: ["pipe", "pipe", "inherit"],
				},
			);
			return httpRequest({ ...common, createConnection: () => duplexOf(child) });
		}
	}
}

/** A connection over a program's standard input and output. */
function duplexOf(child: ChildProcess): Duplex {
	const { stdin, stdout } = child;
	if (stdin === null || stdout === null) {
		throw new SlipwayError("internal", "a program was started without pipes");
	}
	const both = Duplex.from({ readable: stdout, writable: stdin });
	child.on("error", (error) => both.destroy(error));
	both.on("close", () => child.kill());
	return both;
}

async function textOf(response: IncomingMessage, maxBytes: number): Promise<string> {
	const parts: Buffer[] = [];
	let size = 0;
	for await (const part of response) {
		parts.push(part as Buffer);
		size += (part as Buffer).length;
		if (size > maxBytes) {
			throw new SlipwayError(
				"resource-exhausted",
				`the container engine answered more than ${maxBytes} bytes`,
			);
		}
	}
	return Buffer.concat(parts).toString("utf8");
}

function checkStatus(place: ApiPlace, what: string, response: IncomingMessage, text: string): void {
	const status = response.statusCode ?? 0;
	if (status >= 200 && status < 300) {
		return;
	}
	let message = text.slice(0, maxErrorBytes);
	try {
		const document = JSON.parse(text) as { readonly message?: unknown };
		message = typeof document.message === "string" ? document.message : message;
	} catch {}
	throw new SlipwayError(
		status === 404 ? "not-found" : "unknown",
		`${place.shown} answered ${what} with status ${status}: ${printable(message)}`,
	);
}

function parseJson(text: string, place: ApiPlace): unknown {
	try {
		return JSON.parse(text);
	} catch {
		throw new SlipwayError("unknown", `${place.shown} does not answer as a container engine does`);
	}
}

function printable(text: string): string {
	return text.replace(/[\p{C}\s]+/gu, " ").trim();
}

function explain(error: Error, place: ApiPlace, signal: AbortSignal): SlipwayError {
	if (signal.aborted) {
		return toError(signal.reason);
	}
	switch ((error as NodeJS.ErrnoException).code) {
		case "ENOENT":
		case "ECONNREFUSED":
			return new SlipwayError(
				"unavailable",
				`cannot connect to the container engine at ${place.shown}: is it running?`,
				{ cause: error },
			);
		case "EACCES":
		case "EPERM":
			return new SlipwayError(
				"permission-denied",
				`no permission to use the container engine at ${place.shown}`,
				{ cause: error },
			);
		default:
			return wrap(error, `container engine at ${place.shown}`);
	}
}
