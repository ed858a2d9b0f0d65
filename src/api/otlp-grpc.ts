import { once } from "node:events";
import { connect as connectPlain, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { wrap } from "../errors/errors.ts";
import type { ExportTraceServiceResponse } from "./generated/otlp/collector.ts";
import type { Channel, Method } from "./grpc.ts";
import { openChannel } from "./grpc-client.ts";
import type { OtlpSettings, OtlpTransport } from "./otlp.ts";
import { rawCodec } from "./raw-codec.ts";
import { metrics } from "./services/metrics.ts";
import { trace } from "./services/trace.ts";

/** The message is encoded before it comes here; both services answer in the same form. */
function encoded({ signal }: OtlpSettings): Method<"unary", Uint8Array, ExportTraceServiceResponse> {
	const { path } = signal === "metrics" ? metrics.export : trace.export;
	return { ...trace.export, path, request: rawCodec };
}

/** Spans by `TraceService/Export`. The connection is opened when it is needed, and again when it was lost. */
export function openGrpcTransport(settings: OtlpSettings): OtlpTransport {
	let channel: Channel | undefined;
	const metadata = Object.fromEntries(
		Object.entries(settings.headers).map(([name, value]) => [name, [value]]),
	);
	return {
		async send(message) {
			if (channel === undefined || channel.closed.aborted) {
				const socket = await dial(settings);
				channel = openChannel(socket, { authority: settings.endpoint.host });
			}
			await channel.unary(encoded(settings), message, {
				signal: channel.closed,
				metadata,
				timeoutMs: settings.timeoutMs,
			});
		},
		async [Symbol.asyncDispose]() {
			await channel?.[Symbol.asyncDispose]();
		},
	};
}

async function dial({ endpoint, socketPath, tls, timeoutMs }: OtlpSettings): Promise<Socket> {
	const isTls = endpoint.protocol === "https:";
	const host = endpoint.hostname.replace(/^\[(.*)\]$/, "$1");
	const port = Number(endpoint.port || (isTls ? 443 : 80));
	const socket =
		socketPath !== undefined
			? connectPlain(socketPath)
			: isTls
				? connectTls({
						...tls,
						host,
						port,
						servername: /^[\d.]+$|:/.test(host) ? "" : host,
						ALPNProtocols: ["h2"],
					})
				: connectPlain(port, host);
	try {
		await once(socket, isTls && socketPath === undefined ? "secureConnect" : "connect", {
			signal: AbortSignal.timeout(timeoutMs),
		});
		return socket;
	} catch (error) {
		socket.destroy();
		throw wrap(error, `connecting to ${socketPath ?? endpoint.host}`, { code: "unavailable" });
	}
}
