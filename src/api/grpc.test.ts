import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { canceled, SlipwayError } from "../errors/errors.ts";
import { startServer, type Transport } from "./connection.fixture.ts";
import type { CallRecord, Metadata, Method } from "./grpc.ts";
import { serve } from "./grpc-server.ts";
import { type BytesMessage, bytesMessage } from "./services/bytes-message.ts";

function method<const Kind extends "unary" | "client-stream" | "server-stream" | "bidi">(
	kind: Kind,
	name: string,
): Method<Kind, BytesMessage, BytesMessage> {
	return { kind, path: `/test.Service/${name}`, request: bytesMessage, response: bytesMessage };
}

const unary = method("unary", "Unary");
const collect = method("client-stream", "Collect");
const list = method("server-stream", "List");
const bidi = method("bidi", "Bidi");
const never = new AbortController().signal;
const options = { signal: never };

const bytes = (text: string): BytesMessage => ({ data: Buffer.from(text) });
const text = ({ data }: BytesMessage): string => Buffer.from(data).toString();

async function all(messages: AsyncIterable<BytesMessage>): Promise<string[]> {
	const found: string[] = [];
	for await (const message of messages) {
		found.push(text(message));
	}
	return found;
}

/** The error's fields that callers see. */
async function failure(promise: Promise<unknown>): Promise<readonly [string, string]> {
	try {
		await promise;
	} catch (error) {
		assert.ok(error instanceof SlipwayError, String(error));
		return [error.code, error.message];
	}
	assert.fail("no error");
}

/** Resolves when the signal is aborted. */
function aborted(signal: AbortSignal): Promise<unknown> {
	return new Promise((resolve) => {
		if (signal.aborted) {
			resolve(signal.reason);
		}
		signal.addEventListener("abort", () => resolve(signal.reason));
	});
}

for (const transport of ["memory", "unix"] as const satisfies readonly Transport[]) {
	describe(`calls over ${transport}`, () => {
		test("all four kinds, empty messages among them", async () => {
			await using served = await startServer(
				[
					serve(unary, async (request) => bytes(`<${text(request)}>`)),
					serve(collect, async (stream) => bytes((await all(stream)).join("+"))),
					serve(list, async (request, stream) => {
						for (const part of text(request).split(",")) {
							await stream.send(bytes(part));
						}
					}),
					serve(bidi, async (stream) => {
						for await (const message of stream) {
							await stream.send(message);
						}
					}),
				],
				{ transport },
			);
			const { channel } = served;
			assert.equal(text(await channel.unary(unary, bytes("a"), options)), "<a>");
			assert.equal(text(await channel.unary(unary, bytes(""), options)), "<>");
			const collecting = channel.stream(collect, options);
			for (const part of ["a", "", "c"]) {
				await collecting.send(bytes(part));
			}
			collecting.closeSend();
			assert.deepEqual(await all(collecting), ["a++c"]);
			const listing = channel.stream(list, options);
			void listing.send(bytes("x,,z"));
			listing.closeSend();
			assert.deepEqual(await all(listing), ["x", "", "z"]);
			const echoing = channel.stream(bidi, options);
			const answers = echoing[Symbol.asyncIterator]();
			for (const part of ["1", "2"]) {
				await echoing.send(bytes(part));
				assert.equal(text((await answers.next()).value), part);
			}
			echoing.closeSend();
			assert.equal((await answers.next()).done, true);
		});

		test("a message of 15 MB there and back, a hundred calls at once", async () => {
			await using served = await startServer([serve(unary, async (request) => request)], { transport });
			const { channel } = served;
			const big = Buffer.alloc(15 << 20, "0123456789");
			const answer = await channel.unary(unary, { data: big }, options);
			assert.ok(big.equals(answer.data));
			const answers = await Promise.all(
				Array.from({ length: 100 }, (_, index) => channel.unary(unary, bytes(`${index}`), options)),
			);
			assert.deepEqual(
				answers.map(text),
				Array.from({ length: 100 }, (_, index) => `${index}`),
			);
		});
	});
}

describe("metadata", () => {
	test("a repeated key keeps its values apart in all directions, also with commas", async () => {
		const seen: Metadata[] = [];
		await using served = await startServer([
			serve(bidi, async (_stream, call) => {
				seen.push(call.metadata);
				call.sendHeaders({ "x-list": ["c, d", "e"], "x-bin": ["AAEC"] });
			}),
		]);
		const stream = served.channel.stream(bidi, {
			...options,
			metadata: { "include-patterns": ["a, b", "c", ""], "K-bin": ["AP8"], te: ["x"], empty: [] },
		});
		stream.closeSend();
		const headers = await stream.headers;
		assert.deepEqual({ ...headers }, { "x-list": ["c, d", "e"], "x-bin": ["AAEC"] });
		assert.deepEqual(
			{ ...seen[0] },
			{
				"user-agent": ["slipway"],
				"include-patterns": ["a, b", "c", ""],
				"k-bin": ["AP8"],
			},
		);
	});

	test("four thousand values", async () => {
		await using served = await startServer([
			serve(unary, async (_request, call) => bytes(`${call.metadata["p"]?.length}`)),
		]);
		const values = Array.from({ length: 4000 }, (_, index) => `**/node_modules/pattern-${index}`);
		const answer = await served.channel.unary(unary, bytes(""), { ...options, metadata: { p: values } });
		assert.equal(text(answer), "4000");
	});

	test("a value that headers do not carry is refused", async () => {
		await using served = await startServer([serve(unary, async (request) => request)]);
		assert.deepEqual(
			await failure(served.channel.unary(unary, bytes(""), { ...options, metadata: { a: ["\n"] } })),
			["internal", 'header key "a" contains value with non-printable ASCII characters'],
		);
	});
});

describe("errors", () => {
	test("code, message with any text, and details come through, before and after messages", async () => {
		const error = new SlipwayError("failed-precondition", "100 % ü\n\u0000 \ud83d\ude00", {
			details: [
				{ kind: "vertex", digest: "sha256:ab" },
				{ kind: "errno", errno: "ENOENT" },
				{
					kind: "source",
					file: { filename: "Dockerfile", data: Buffer.from("FROM a"), language: "Dockerfile" },
					ranges: [{ start: { line: 1, character: 0 }, end: { line: 1, character: 4 } }],
				},
				{ kind: "exit", code: 137 },
				{ kind: "foreign", typeUrl: "example.com/x", value: Buffer.from([1, 2]) },
			],
		});
		await using served = await startServer([
			serve(unary, async () => {
				throw error;
			}),
			serve(bidi, async (stream) => {
				await stream.send(bytes("a"));
				throw error;
			}),
		]);
		const expected = error.details.filter(({ kind }) => kind !== "errno");
		for (const end of [
			served.channel.unary(unary, bytes(""), options),
			(async () => {
				const stream = served.channel.stream(bidi, options);
				const found: string[] = [];
				try {
					for await (const message of stream) {
						found.push(text(message));
					}
				} finally {
					assert.deepEqual(found, ["a"]);
				}
			})(),
		]) {
			await assert.rejects(end, (thrown: SlipwayError) => {
				assert.equal(thrown.code, "failed-precondition");
				assert.equal(thrown.message, error.message);
				assert.deepEqual(JSON.stringify(thrown.details), JSON.stringify(expected));
				return true;
			});
		}
	});

	test("what is not served", async () => {
		await using served = await startServer([serve(unary, async (request) => request)]);
		const at = (path: string) => failure(served.channel.unary({ ...unary, path }, bytes(""), options));
		assert.deepEqual(await at("/test.Service/No"), [
			"unimplemented",
			"unknown method No for service test.Service",
		]);
		assert.deepEqual(await at("/no.Service/No"), ["unimplemented", "unknown service no.Service"]);
		assert.deepEqual(await at("/x"), ["unimplemented", 'malformed method name: "/x"']);
	});

	test("messages that are too large, either way", async () => {
		await using served = await startServer(
			[
				serve(unary, async (request) => ({ data: Buffer.alloc(Number(text(request).slice(0, 5))) })),
				serve(bidi, async (stream) => {
					await all(stream);
				}),
			],
			{ maxMessageBytes: 1000 },
		);
		const { channel } = served;
		const big = { data: Buffer.alloc(2000, "00001") };
		const tooLarge = ["resource-exhausted", "grpc: received message larger than max (2003 vs. 1000)"];
		assert.deepEqual(await failure(channel.unary(unary, big, options)), tooLarge);
		assert.deepEqual(await failure(channel.unary(unary, bytes("02000"), options)), tooLarge);
		const stream = channel.stream(bidi, options);
		void stream.send(big);
		assert.deepEqual(await failure(all(stream)), tooLarge);
		assert.equal((await channel.unary(unary, bytes("00005"), options)).data.length, 5);
	});

	test("a message that is none, either way", async () => {
		const garbage: Method<"unary", BytesMessage, BytesMessage> = {
			...unary,
			request: {
				...bytesMessage,
				parts: undefined as never,
				encode: () => ({ finish: () => Buffer.from([10, 99]) }),
			},
		};
		await using served = await startServer([
			serve(unary, async (request) => request),
			serve(list, async () => {}),
		]);
		assert.deepEqual(await failure(served.channel.unary(garbage, bytes(""), options)), [
			"internal",
			"grpc: error unmarshalling request: proto: premature EOF",
		]);
		const none = served.channel.stream(list, options);
		none.closeSend();
		assert.deepEqual(await failure(all(none)), [
			"internal",
			"cardinality violation: received no request message from non-client-streaming RPC",
		]);
		const two = served.channel.stream({ ...unary, kind: "bidi" }, options);
		const nothing = served.channel.unary({ ...list, kind: "unary" }, bytes(""), options);
		assert.deepEqual(await failure(nothing), [
			"internal",
			"cardinality violation: received no response message from non-server-streaming RPC",
		]);
		void two.send(bytes("1"));
		void two.send(bytes("2"));
		two.closeSend();
		await all(two).catch(() => {});
	});

	test("a handler that throws what is no error of ours, or answers what is no message", async () => {
		await using served = await startServer([
			serve(unary, () => {
				throw new TypeError("x is not a function");
			}),
			serve(collect, async () => undefined as never),
			serve({ ...unary, path: "/test.Service/Other" }, async () => ({}) as never),
		]);
		assert.deepEqual(await failure(served.channel.unary(unary, bytes(""), options)), [
			"unknown",
			"x is not a function",
		]);
		const other = await failure(
			served.channel.unary({ ...unary, path: "/test.Service/Other" }, bytes(""), options),
		);
		assert.match(other.join(), /^unknown,Cannot read properties of undefined/);
	});
});

describe("ends", () => {
	/** Handlers that wait for their end, and tell why. */
	function waiting() {
		const started = Promise.withResolvers<void>();
		const ended = Promise.withResolvers<unknown>();
		const wait = async (signal: AbortSignal): Promise<never> => {
			started.resolve();
			const reason = await aborted(signal);
			ended.resolve(reason);
			throw reason;
		};
		return { started: started.promise, ended: ended.promise, wait };
	}

	test("a caller that aborts ends the handler, in each phase", async () => {
		for (const phase of ["before headers", "after headers", "after messages", "while sending"]) {
			const handler = waiting();
			await using served = await startServer([
				serve(bidi, async (stream, call) => {
					if (phase === "after headers") {
						call.sendHeaders();
					} else if (phase === "after messages") {
						await stream.send(bytes("1"));
					}
					await handler.wait(call.signal);
				}),
			]);
			const controller = new AbortController();
			const stream = served.channel.stream(bidi, { signal: controller.signal });
			if (phase === "while sending") {
				const chunk = { data: Buffer.alloc(1 << 20) };
				let room = stream.send(chunk);
				while (room === undefined) {
					room = stream.send(chunk);
				}
				room.catch(() => {});
			}
			await handler.started;
			if (phase === "after messages") {
				assert.equal(text((await stream[Symbol.asyncIterator]().next()).value), "1");
			}
			controller.abort(canceled());
			assert.deepEqual(await failure(all(stream)), ["canceled", "context canceled"], phase);
			assert.equal(((await handler.ended) as SlipwayError).code, "canceled", phase);
			assert.throws(() => void stream.send(bytes("")), { code: "canceled" });
		}
	});

	test("an aborted signal makes no call", async () => {
		await using served = await startServer([]);
		const signal = AbortSignal.abort();
		assert.equal((await failure(served.channel.unary(unary, bytes(""), { signal })))[0], "canceled");
		assert.throws(() => served.channel.stream(bidi, { signal }), { code: "canceled" });
	});

	test("the deadline ends both sides, and is told to the server", async () => {
		const handler = waiting();
		await using served = await startServer([serve(unary, (_request, call) => handler.wait(call.signal))]);
		const end = failure(served.channel.unary(unary, bytes(""), { ...options, timeoutMs: 30 }));
		assert.deepEqual(await end, ["deadline-exceeded", "context deadline exceeded"]);
		assert.match(((await handler.ended) as SlipwayError).code, /^(deadline-exceeded|canceled)$/);
	});

	test("a server ends a call at its deadline also when the handler does not listen", async () => {
		const release = Promise.withResolvers<BytesMessage>();
		await using served = await startServer([serve(unary, () => release.promise)]);
		const stream = served.channel.stream(unary, { ...options, metadata: {} });
		stream.cancel();
		// The client's own clock is not asked here: only the header says it.
		const { default: http2 } = await import("node:http2");
		const raw = await served.connect();
		const session = http2.connect("http://localhost", { createConnection: () => raw });
		const request = session.request({
			":method": "POST",
			":path": unary.path,
			"content-type": "application/grpc",
			"grpc-timeout": "20m",
		});
		request.end(Buffer.from([0, 0, 0, 0, 0]));
		const headers = await new Promise<Record<string, unknown>>((resolve) => request.on("response", resolve));
		assert.equal(headers["grpc-status"], "4");
		assert.equal(headers["grpc-message"], "context deadline exceeded");
		session.destroy();
		release.resolve(bytes(""));
	});

	test("a connection that is lost ends the calls of both sides", async () => {
		for (const loser of ["client", "server"]) {
			const handler = waiting();
			await using served = await startServer([serve(unary, (_request, call) => handler.wait(call.signal))], {
				transport: "unix",
			});
			const end = failure(served.channel.unary(unary, bytes(""), options));
			await handler.started;
			if (loser === "client") {
				served.connection.destroy();
			} else {
				await served.server[Symbol.asyncDispose]();
			}
			assert.equal((await end)[0], "unavailable", loser);
			await handler.ended;
			if (!served.channel.closed.aborted) {
				await aborted(served.channel.closed);
			}
			assert.equal((await failure(served.channel.unary(unary, bytes(""), options)))[0], "unavailable");
		}
	});

	test("draining: calls that run end well, new ones are refused", async () => {
		const release = Promise.withResolvers<BytesMessage>();
		const started = Promise.withResolvers<void>();
		await using served = await startServer([
			serve(unary, () => {
				started.resolve();
				return release.promise;
			}),
		]);
		const running = served.channel.unary(unary, bytes(""), options);
		await started.promise;
		const drained = served.server.drain();
		await nextTurn();
		const late = failure(served.channel.unary(unary, bytes(""), options));
		release.resolve(bytes("well"));
		assert.equal(text(await running), "well");
		await drained;
		assert.deepEqual(await late, ["unavailable", "the server takes no more calls on this connection"]);
		const another = await served.connect();
		if (!another.destroyed) {
			await once(another, "close");
		}
	});

	test("a handler that answers without reading stops the sender", async () => {
		await using served = await startServer([serve(collect, async () => bytes("enough"))]);
		const stream = served.channel.stream(collect, options);
		const sending = (async () => {
			for (;;) {
				await stream.send({ data: Buffer.alloc(1 << 18) });
				await nextTurn();
			}
		})();
		assert.deepEqual(await all(stream), ["enough"]);
		await assert.rejects(sending);
	});

	test("each call is recorded once, with its error", async () => {
		const records: CallRecord[] = [];
		await using served = await startServer(
			[
				serve(unary, async (request) => {
					if (request.data.length === 0) {
						throw new SlipwayError("not-found", "no");
					}
					return request;
				}),
			],
			{ onCall: (record) => records.push(record) },
		);
		await served.channel.unary(unary, bytes("a"), options);
		await served.channel.unary(unary, bytes(""), options).catch(() => {});
		assert.deepEqual(
			records.map(({ path, error }) => [path, error?.code]),
			[
				["/test.Service/Unary", undefined],
				["/test.Service/Unary", "not-found"],
			],
		);
		assert.ok(records.every(({ startedMs, endedMs }) => startedMs <= endedMs));
	});
});

describe("flow control", () => {
	test("a reader that does not read holds the sender back; all arrives when it does", async () => {
		for (const transport of ["memory", "unix"] as const) {
			const total = 64;
			const piece = Buffer.alloc(1 << 20);
			let sent = 0;
			const blocked = Promise.withResolvers<void>();
			await using served = await startServer(
				[
					serve(list, async (_request, stream) => {
						for (; sent < total; sent++) {
							const room = stream.send({ data: piece });
							if (room !== undefined) {
								blocked.resolve();
								await room;
							}
						}
					}),
				],
				{ transport },
			);
			const stream = served.channel.stream(list, options);
			void stream.send(bytes(""));
			stream.closeSend();
			await blocked.promise;
			// What is under way is bounded: windows, queues and the buffers of the connection.
			let before = -1;
			while (sent !== before) {
				before = sent;
				for (let turn = 0; turn < 50; turn++) {
					await nextTurn();
				}
			}
			assert.ok(sent < 24, `${sent} MB were taken from a sender whose reader does not read (${transport})`);
			let received = 0;
			for await (const { data } of stream) {
				received += data.length;
			}
			assert.equal(received, total << 20);
		}
	});

	test("bytes are what they were, in pieces of all sizes both ways at once", async () => {
		for (const transport of ["memory", "unix"] as const) {
			await using served = await startServer(
				[
					serve(bidi, async (stream) => {
						for await (const message of stream) {
							await stream.send(message);
						}
					}),
				],
				{ transport },
			);
			const stream = served.channel.stream(bidi, options);
			const sizes = [0, 1, 2, 100, 2047, 2048, 2049, 16_379, 16_384, 65_535, 65_536, 131_072, 300_001];
			const pieces = Array.from({ length: 400 }, (_, index) => {
				const size = sizes[(index * 7) % sizes.length] as number;
				const piece = Buffer.allocUnsafe(size);
				for (let at = 0; at < size; at++) {
					piece[at] = at * 31 + index;
				}
				return piece;
			});
			const sending = (async () => {
				for (const data of pieces) {
					await stream.send({ data });
				}
				stream.closeSend();
			})();
			let index = 0;
			for await (const { data } of stream) {
				assert.ok(pieces[index]?.equals(data), `piece ${index} has changed`);
				index++;
			}
			assert.equal(index, pieces.length);
			await sending;
		}
	});
});
