import { type IncomingMessage, Agent as PlainAgent, request as requestPlain } from "node:http";
import { request as requestTls, Agent as TlsAgent } from "node:https";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { redactUrl, SlipwayError, wrap } from "../errors/errors.ts";
import type { OtlpSettings, OtlpTransport } from "./otlp.ts";

/** What a collector says about an error is cut after that. */
const maxReasonBytes = 4096;

/** Spans as `http/protobuf`: one POST for each message. */
export function openHttpTransport(settings: OtlpSettings): OtlpTransport {
	const isTls = settings.endpoint.protocol === "https:";
	const agent = isTls
		? new TlsAgent({ ...settings.tls, keepAlive: true })
		: new PlainAgent({ keepAlive: true });
	return {
		async send(message) {
			const body = settings.gzip ? await promisify(gzip)(message) : message;
			const response = await post(settings, { agent, body });
			const status = response.statusCode ?? 0;
			const reason = await readReason(response);
			if (status < 200 || status > 299) {
				// The only ones after which the specification lets a client try again.
				const again = [429, 502, 503, 504].includes(status);
				throw new SlipwayError(
					again ? "unavailable" : "unknown",
					`${redactUrl(settings.endpoint.href)} answered ${status}${reason === "" ? "" : `: ${reason}`}`,
				);
			}
		},
		async [Symbol.asyncDispose]() {
			agent.destroy();
		},
	};
}

function post(
	{ endpoint, socketPath, headers, gzip: isGzip, timeoutMs }: OtlpSettings,
	{ agent, body }: { readonly agent: PlainAgent; readonly body: Uint8Array },
): Promise<IncomingMessage> {
	const options = {
		agent,
		method: "POST",
		signal: AbortSignal.timeout(timeoutMs),
		...(socketPath === undefined ? {} : { socketPath }),
		headers: {
			...headers,
			"content-type": "application/x-protobuf",
			"content-length": body.length,
			"user-agent": "slipway",
			...(isGzip ? { "content-encoding": "gzip" } : {}),
		},
	};
	return new Promise((resolve, reject) => {
		const request =
			endpoint.protocol === "https:" ? requestTls(endpoint, options) : requestPlain(endpoint, options);
		request.once("response", resolve);
		request.once("error", (error) =>
			reject(wrap(error, `sending to ${redactUrl(endpoint.href)}`, { code: "unavailable" })),
		);
		request.end(body);
	});
}

async function readReason(response: IncomingMessage): Promise<string> {
	const parts: Uint8Array[] = [];
	let length = 0;
	for await (const part of response as AsyncIterable<Uint8Array>) {
		length += part.length;
		if (length <= maxReasonBytes) {
			parts.push(part);
		}
	}
	const isText = /^(text\/|application\/json)/.test(response.headers["content-type"] ?? "");
	return isText ? Buffer.concat(parts).toString().trim() : "";
}
