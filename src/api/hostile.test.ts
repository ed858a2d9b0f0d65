import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { type ClientHttp2Session, connect as connectHttp2, constants } from "node:http2";
import { type Duplex, duplexPair } from "node:stream";
import { describe, test } from "node:test";
import { SlipwayError } from "../errors/errors.ts";
import { type Served, startServer } from "./connection.fixture.ts";
import type { Method } from "./grpc.ts";
import { openChannel } from "./grpc-client.ts";
import { serve } from "./grpc-server.ts";
import { type BytesMessage, bytesMessage } from "./services/bytes-message.ts";
import { control } from "./services/control.ts";
import { packet } from "./services/packet.ts";

const echo: Method<"unary", BytesMessage, BytesMessage> = {
	kind: "unary",
	path: "/test.Service/Echo",
	request: bytesMessage,
	response: bytesMessage,
};
const echoStream: Method<"bidi", BytesMessage, BytesMessage> = {
	...echo,
	kind: "bidi",
	path: "/test.Service/EchoStream",
};
const signal = new AbortController().signal;

function start(): Promise<Served> {
	return startServer(
		[
			serve(echo, async (request) => request),
			serve(echoStream, async (stream) => {
				for await (const message of stream) {
					await stream.send(message);
				}
			}),
			serve(control.solve, async () => ({ ExporterResponse: new Map() })),
		],
		{ transport: "unix" },
	);
}

/** The server is as well as before. */
async function assertServes(served: Served): Promise<void> {
	const answer = await served.channel.unary(echo, { data: Buffer.from("still here") }, { signal });
	assert.equal(Buffer.from(answer.data).toString(), "still here");
}

/** Bytes without a pattern that are the same in each run. */
function noise(seed: number, length: number): Buffer {
	const parts: Buffer[] = [];
	for (let index = 0; index * 64 < length; index++) {
		parts.push(createHash("sha512").update(`${seed}.${index}`).digest());
	}
	return Buffer.concat(parts).subarray(0, length);
}

const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const emptySettings = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);

async function sendAndClose(connection: Duplex, bytes: Uint8Array): Promise<void> {
	connection.on("error", () => {});
	connection.resume();
	connection.end(bytes);
	if (!connection.destroyed) {
		await once(connection, "close");
	}
}

async function withSession(
	served: Served,
	use: (session: ClientHttp2Session) => Promise<void>,
): Promise<void> {
	const connection = await served.connect();
	const session = connectHttp2("http://localhost", { createConnection: () => connection });
	session.on("error", () => {});
	try {
		await use(session);
	} finally {
		session.destroy();
	}
}

const headers = {
	":method": "POST",
	":path": echoStream.path,
	"content-type": "application/grpc",
	te: "trailers",
};

interface Answer {
	readonly status: string | undefined;
	readonly message: string | undefined;
	readonly httpStatus: number | undefined;
}

/** Sends a body as it is, and gives the status that comes back. */
async function send(
	session: ClientHttp2Session,
	body: Uint8Array,
	extra: Readonly<Record<string, string>> = {},
): Promise<Answer> {
	const stream = session.request({ ...headers, ...extra });
	const found: Record<string, unknown> = {};
	stream.on("response", (fields) => Object.assign(found, fields));
	stream.on("trailers", (fields) => Object.assign(found, fields));
	stream.on("error", () => {});
	stream.resume();
	if (body.length === 0) {
		stream.end();
	} else {
		stream.end(body);
	}
	await once(stream, "close");
	const message = found["grpc-message"];
	return {
		status: found["grpc-status"] as string | undefined,
		message: typeof message === "string" ? decodeURIComponent(message) : undefined,
		httpStatus: found[":status"] as number | undefined,
	};
}

describe("a server's hostile clients", () => {
	test("bytes that are no HTTP/2, at the start and after the preface", async () => {
		await using served = await start();
		await sendAndClose(await served.connect(), Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
		await sendAndClose(await served.connect(), preface.subarray(0, 10));
		for (let seed = 0; seed < 30; seed++) {
			const bytes = noise(seed, 2000);
			await sendAndClose(await served.connect(), bytes);
			await sendAndClose(await served.connect(), Buffer.concat([preface, emptySettings, bytes]));
		}
		await assertServes(served);
	});

	test("connections that end in every phase", async () => {
		await using served = await start();
		for (const phase of ["at once", "after settings", "in headers", "in a message", "in an answer"]) {
			const connection = await served.connect();
			if (phase !== "at once") {
				const session = connectHttp2("http://localhost", { createConnection: () => connection });
				session.on("error", () => {});
				await once(session, "remoteSettings");
				if (phase !== "after settings") {
					const stream = session.request(headers);
					stream.on("error", () => {});
					if (phase !== "in headers") {
						stream.write(
							Buffer.from([0, 0, 0, 4, 0, ...(phase === "in a message" ? [1] : Array(1024).fill(0))]),
						);
						if (phase === "in an answer") {
							await once(stream, "response");
						}
					}
				}
			}
			connection.destroy();
		}
		await assertServes(served);
	});

	test("frames of messages that are wrong", async () => {
		await using served = await start();
		await withSession(served, async (session) => {
			const cases: readonly (readonly [Uint8Array, string, string])[] = [
				[Buffer.from([0, 0, 0]), "13", "unexpected EOF"],
				[Buffer.from([0, 0, 0, 0, 9, 1, 2]), "13", "unexpected EOF"],
				[Buffer.from([1, 0, 0, 0, 0]), "13", "grpc: compressed flag set with identity or empty encoding"],
				[Buffer.from([7, 0, 0, 0, 0]), "13", "grpc: received unexpected payload format 7"],
				[
					Buffer.from([0, 255, 255, 255, 255]),
					"8",
					"grpc: received message larger than max (4294967295 vs. 16777216)",
				],
				[
					Buffer.from([0, 0, 0, 0, 2, 10, 5]),
					"13",
					"grpc: failed to unmarshal the received message: proto: premature EOF",
				],
			];
			for (const [body, status, message] of cases) {
				assert.deepEqual(await send(session, body), { status, message, httpStatus: 200 });
			}
		});
		await assertServes(served);
	});

	test("requests that are no calls", async () => {
		await using served = await start();
		await withSession(served, async (session) => {
			assert.deepEqual(await send(session, new Uint8Array(0), { "content-type": "text/html" }), {
				status: "3",
				message: 'invalid gRPC request content-type "text/html"',
				httpStatus: 415,
			});
			assert.deepEqual(await send(session, new Uint8Array(0), { ":method": "PUT" }), {
				status: "13",
				message: 'Received a HEADERS frame with :method "PUT" which should be POST',
				httpStatus: 405,
			});
			for (const timeout of ["", "5", "5x", "123456789m", "-1m", "m"]) {
				const answer = await send(session, new Uint8Array(0), { "grpc-timeout": timeout });
				assert.equal(answer.status, "13", timeout);
				assert.match(answer.message ?? "", /^malformed grpc-timeout: /);
			}
			assert.equal((await send(session, new Uint8Array(0), { "grpc-encoding": "gzip" })).status, "12");
		});
		await assertServes(served);
	});

	test("noise in place of messages ends in errors, never in more", async () => {
		await using served = await start();
		await withSession(served, async (session) => {
			for (let seed = 0; seed < 100; seed++) {
				const body = noise(seed, 10 + seed * 7);
				const prefix = Buffer.from([0, 0, 0, body.length >> 8, body.length & 0xff]);
				const answer = await send(session, Buffer.concat([prefix, body]), { ":path": control.solve.path });
				assert.ok(answer.status === "13" || answer.status === "0", JSON.stringify(answer));
			}
		});
		for (let seed = 0; seed < 500; seed++) {
			try {
				packet.decode(noise(seed, 5 + (seed % 60)));
			} catch (error) {
				assert.ok(error instanceof Error && error.name !== "TypeError", String(error));
			}
		}
		await assertServes(served);
	});

	test("a flood of calls that are reset at once, and of headers", async () => {
		await using served = await start();
		await withSession(served, async (session) => {
			for (let index = 0; index < 3000 && !session.destroyed && !session.closed; index++) {
				const stream = session.request(headers);
				stream.on("error", () => {});
				stream.close(constants.NGHTTP2_CANCEL);
				if (index % 100 === 0) {
					await new Promise((resolve) => setImmediate(resolve));
				}
			}
		});
		await withSession(served, async (session) => {
			const many: Record<string, string> = {};
			for (let index = 0; index < 3000; index++) {
				many[`x-${index}`] = "y".repeat(20);
			}
			await send(session, new Uint8Array(0), many).catch(() => {});
		});
		await assertServes(served);
	});

	test("a hundred stalled calls with large messages hold bounded memory", async () => {
		await using served = await start();
		await withSession(served, async (session) => {
			// They announce 15 MB each, and send no more than a little.
			const streams = Array.from({ length: 100 }, () => {
				const stream = session.request(headers);
				stream.on("error", () => {});
				stream.write(Buffer.from([0, 0, 0xe0, 0, 0, 1]));
				return stream;
			});
			await send(session, Buffer.from([0, 0, 0, 0, 0]));
			assert.ok(process.memoryUsage().arrayBuffers < 300 << 20);
			for (const stream of streams) {
				stream.destroy();
			}
		});
		await assertServes(served);
	});
});

describe("a client's hostile servers", () => {
	/** A channel whose server answers with bytes. */
	function against(answer: (connection: Duplex) => void) {
		const [near, far] = duplexPair();
		far.on("error", () => {});
		near.once("close", () => far.destroy());
		far.once("close", () => near.destroy());
		answer(far);
		return openChannel(near);
	}

	test("noise, silence and an early end are errors of the call", async () => {
		for (let seed = 0; seed < 20; seed++) {
			await using channel = against((far) => {
				far.resume();
				far.end(seed === 0 ? Buffer.alloc(0) : noise(seed, seed * 50));
			});
			await assert.rejects(
				channel.unary(echo, { data: new Uint8Array(0) }, { signal }),
				(error: unknown) => error instanceof SlipwayError && error.code === "unavailable",
			);
			await assert.rejects(channel.unary(echo, { data: new Uint8Array(0) }, { signal }), {
				code: "unavailable",
			});
		}
		await using silent = against((far) => far.resume());
		await assert.rejects(silent.unary(echo, { data: new Uint8Array(0) }, { signal, timeoutMs: 20 }), {
			code: "deadline-exceeded",
		});
	});
});
