import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesMessage } from "../api/services/bytes-message.ts";
import { health } from "../api/services/health.ts";
import { upload } from "../api/services/upload.ts";
import { SlipwayError } from "../errors/errors.ts";
import { decodeHeaders, encodeHeaders } from "./hpack.ts";
import { accepted, fine, frame, message, openPeer as open, refused, turn } from "./http2-peer.fixture.ts";

const signal = new AbortController().signal;

test("decodeHeaders: the examples of RFC 7541, appendix C", () => {
	const hex = (text: string): Buffer => Buffer.from(text.replaceAll(" ", ""), "hex");
	assert.deepEqual(decodeHeaders(hex("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff")), [
		":method",
		"GET",
		":scheme",
		"http",
		":path",
		"/",
		":authority",
		"www.example.com",
	]);
	assert.deepEqual(decodeHeaders(hex("040c 2f73 616d 706c 652f 7061 7468")), [":path", "/sample/path"]);
	assert.deepEqual(decodeHeaders(hex("1008 7061 7373 776f 7264 0673 6563 7265 74")), ["password", "secret"]);
	// Beyond the static table, a table of more than nothing, cut off, wrong padding.
	for (const bad of ["be", "3fe11f", "040c2f", "00", "008400000000", "0081ff00"]) {
		assert.throws(() => decodeHeaders(hex(bad)), { code: "internal" });
	}
	const fields = { a: ["1", "2"], "long-name-bin": "x".repeat(10_000), empty: "" };
	assert.deepEqual(decodeHeaders(encodeHeaders(fields)), [
		"a",
		"1",
		"a",
		"2",
		"long-name-bin",
		fields["long-name-bin"],
		"empty",
		"",
	]);
});

test("an answer is read however it is cut, with padding, pings and unknown frames between", async () => {
	const answer = Buffer.concat([
		frame(4, 0, 0),
		frame(6, 0, 0, Buffer.from("12345678")),
		frame(99, 255, 7, Buffer.from("?")),
		frame(1, 0, 1, accepted.subarray(0, 5)),
		frame(9, 4, 1, accepted.subarray(5)),
		frame(0, 8, 1, Buffer.concat([Buffer.of(3), message(Buffer.of(0x08)).subarray(0, 4), Buffer.alloc(3)])),
		frame(0, 0, 1, Buffer.concat([Buffer.of(2), Buffer.of(0x08, 0x01)])),
		frame(1, 5, 1, fine),
	]);
	for (const size of [1, 2, 7, 9, 50, answer.length]) {
		const { channel, give, sent } = open();
		const asked = channel.unary(health.check, { service: "" }, { signal });
		for (let at = 0; at < answer.length; at += size) {
			give(answer.subarray(at, at + size));
		}
		assert.deepEqual(await asked, { status: 1 });
		await turn();
		assert.ok(sent().includes(frame(6, 1, 0, Buffer.from("12345678"))));
		assert.ok(sent().includes(frame(4, 1, 0)));
	}
});

test("the other side's windows and number of calls are kept to", async () => {
	const { channel, give, sent } = open();
	give(frame(4, 0, 0, Buffer.from("000300000001000400000064", "hex")));
	await turn();
	const stream = channel.stream(upload.pull, { signal });
	const second = channel.stream(upload.pull, { signal });
	const room = stream.send({ data: Buffer.alloc(3 << 20, "z") });
	assert.ok(room !== undefined);
	await turn();
	const count = (): number => [...sent()].filter((byte) => byte === 0x7a).length;
	assert.ok(count() <= 100);
	give(frame(8, 0, 1, Buffer.from("00010000", "hex")));
	await turn();
	assert.ok(count() > 60_000 && count() <= 65_535);
	give(frame(8, 0, 0, Buffer.from("00400000", "hex")), frame(8, 0, 1, Buffer.from("00400000", "hex")));
	await room;
	await turn();
	assert.equal(count(), 3 << 20);
	// The second call begins when the first has ended.
	const startOf = (id: number): number =>
		sent().indexOf(Buffer.concat([Buffer.of(1, 4), frame(0, 0, id).subarray(5)]));
	assert.equal(startOf(3), -1);
	give(frame(1, 4, 1, accepted), frame(1, 5, 1, fine));
	for await (const _ of stream) {
		assert.fail("there is none");
	}
	await turn();
	assert.ok(startOf(3) > 0);
	second.cancel();
});

test("what breaks the protocol closes the connection, and the calls on it", async () => {
	const bad: readonly (readonly Uint8Array[])[] = [
		[frame(5, 4, 1, Buffer.alloc(8))],
		[frame(0, 0, 0).fill(0xff, 0, 3)],
		[frame(1, 0, 1, accepted), frame(0, 0, 1)],
		[frame(9, 4, 1, accepted)],
		[frame(3, 0, 1, Buffer.alloc(2))],
		[frame(8, 0, 0, Buffer.from("7fffffff", "hex"))],
		[frame(1, 4, 1, Buffer.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff))],
		// More than the window, of messages that nobody reads.
		[
			frame(1, 4, 1, accepted),
			...Array.from({ length: 10 }, () => frame(0, 0, 1, message(Buffer.alloc(1_000_000)))),
		],
		[frame(1, 0, 1, accepted), ...Array.from({ length: 3 }, () => frame(9, 0, 1, Buffer.alloc(1 << 19)))],
	];
	for (const [index, bytes] of bad.entries()) {
		const { channel, give } = open();
		const stream = channel.stream(upload.pull, { signal });
		give(...bytes);
		await turn();
		await turn();
		assert.ok(channel.closed.aborted, `case ${index}`);
		await assert.rejects(stream[Symbol.asyncIterator]().next(), SlipwayError, `case ${index}`);
		assert.throws(() => channel.stream(upload.pull, { signal }), { code: "unavailable" });
	}
});

test("messages that nobody reads hold the other side back, however small they are, and none is lost", async () => {
	const { channel, give, frames } = open();
	const grants = (): number => frames().filter(({ type, id }) => type === 8 && id === 1).length;
	const count = 240_000;
	const messages = Buffer.concat(
		Array.from({ length: count }, (_, index) =>
			message(Buffer.from(`\n\x08${String(index).padStart(8, "0")}`)),
		),
	);
	const sendAll = (id: number): void => {
		give(frame(1, 4, id, accepted));
		for (let at = 0; at < messages.length; at += 5000) {
			give(frame(0, 0, id, messages.subarray(at, at + (at % 10_000 === 0 ? 5000 : 2500))));
			if (at % 10_000 !== 0) {
				give(frame(0, 0, id, messages.subarray(at + 2500, at + 5000)));
			}
		}
	};
	const stream = channel.stream(upload.pull, { signal });
	sendAll(1);
	give(frame(1, 5, 1, fine));
	await turn();
	assert.ok(messages.length > 3 << 20 && grants() <= 1, `${grants()} grants`);
	let at = 0;
	for await (const { data } of stream) {
		assert.equal(Buffer.from(data).toString(), String(at++).padStart(8, "0"));
	}
	assert.equal(at, count);

	const failing = channel.stream(upload.pull, { signal });
	failing.closeSend();
	sendAll(3);
	give(frame(1, 5, 3, refused));
	await assert.rejects(
		async () => {
			for await (const _ of failing) {
				// Some came before.
			}
		},
		{ message: "not here" },
	);
	assert.equal(channel.closed.aborted, false);
});

test("resets, a server that goes away, and a tunnel that ends are errors of the calls", async () => {
	const { channel, give, end } = open();
	const calls = [1, 2, 3].map(() => channel.stream(upload.pull, { signal }));
	give(
		frame(3, 0, 1, Buffer.from("00000007", "hex")),
		frame(7, 0, 0, Buffer.from("0000000300000000", "hex")),
	);
	const errors = calls.map((call) => call[Symbol.asyncIterator]().next());
	await assert.rejects(errors[0] as Promise<unknown>, { code: "unavailable", message: /REFUSED_STREAM/ });
	await assert.rejects(errors[2] as Promise<unknown>, { code: "unavailable" });
	assert.throws(() => channel.stream(upload.pull, { signal }), { code: "unavailable" });
	end(new Error("cut"));
	await assert.rejects(errors[1] as Promise<unknown>, { message: "connection closed: cut" });
});

test("noise ends in errors, never in more", async () => {
	let state = 1;
	const random = (below: number): number => {
		state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
		return Math.floor((state / 2 ** 32) * below);
	};
	for (let run = 0; run < 500; run++) {
		const { channel, give, end } = open();
		const stream = channel.stream(upload.pull, { signal });
		const reading = (async () => {
			for await (const each of stream) {
				assert.ok(bytesMessage.encode(each));
			}
		})();
		for (let piece = random(6); piece >= 0; piece--) {
			const noise = Buffer.from(Array.from({ length: random(60) }, () => random(256)));
			give(run % 2 === 0 ? noise : frame(random(10), random(64), random(3), noise));
		}
		end();
		await assert.rejects(reading, SlipwayError);
		await turn();
		assert.ok(channel.closed.aborted);
	}
});
