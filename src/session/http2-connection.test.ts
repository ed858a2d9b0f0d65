import assert from "node:assert/strict";
import { test } from "node:test";
import { health } from "../api/services/health.ts";
import { upload } from "../api/services/upload.ts";
import { encodeHeaders } from "./hpack.ts";
import {
	accepted,
	fine,
	frame,
	message,
	openPeer,
	type Peer,
	refused,
	type SentFrame,
	turn,
	uint32,
} from "./http2-peer.fixture.ts";

const signal = new AbortController().signal;
const data = 0;
const headers = 1;
const reset = 3;
const ping = 6;
const goAway = 7;
const windowUpdate = 8;

function ofType(peer: Peer, type: number): readonly SentFrame[] {
	return peer.frames().filter((each) => each.type === type);
}

function sentBytes(peer: Peer, id: number): number {
	return ofType(peer, data)
		.filter((each) => each.id === id)
		.reduce((sum, each) => sum + each.payload.length, 0);
}

function settings(key: number, value: number): Buffer {
	return frame(4, 0, 0, Buffer.concat([Buffer.of(0, key), uint32(value)]));
}

async function turns(): Promise<void> {
	await turn();
	await turn();
}

test("a call that is refused sends no more, and ends when the other side has read what was under way", async () => {
	const peer = openPeer();
	peer.give(settings(4, 64 << 20), frame(windowUpdate, 0, 0, uint32(64 << 20)));
	await turns();
	const goOn = peer.block();
	const stream = peer.channel.stream(upload.pull, { signal });
	const other = peer.channel.stream(upload.pull, { signal });
	await turns();
	const sending = stream.send({ data: Buffer.alloc(6 << 20) });
	const otherSending = other.send({ data: Buffer.alloc(3 << 20) });
	assert.ok(sending !== undefined && otherSending !== undefined);
	let isTold = false;
	const told = sending.catch((error: unknown) => {
		isTold = true;
		throw error;
	});
	told.catch(() => undefined);
	await turns();
	const before = sentBytes(peer, 1);
	peer.give(
		frame(headers, 4, 1, accepted),
		frame(headers, 5, 1, refused),
		// What Go's server says of a request that it does not want to read.
		frame(reset, 0, 1, uint32(0)),
	);
	await turns();
	const late = stream.send({ data: Buffer.alloc(10) });
	late?.catch(() => undefined);
	goOn();
	await turns();
	assert.equal(sentBytes(peer, 1), before, "what waited is not sent");
	assert.deepEqual(
		ofType(peer, reset).map(({ id, payload }) => [id, payload.readUInt32BE()]),
		[[1, 0]],
	);
	const [asked] = ofType(peer, ping);
	assert.ok(asked !== undefined && asked.flags === 0);
	const order = peer.frames().map((each) => each.type);
	assert.ok(order.indexOf(ping) > order.indexOf(reset));
	assert.equal(isTold, false);
	peer.give(frame(ping, 1, 0, asked.payload));
	await assert.rejects(told, { code: "unknown", message: "not here" });
	await assert.rejects(stream[Symbol.asyncIterator]().next(), { message: "not here" });
	// The connection and what else is on it go on.
	await otherSending;
	await turns();
	assert.equal(sentBytes(peer, 3), (3 << 20) + 10);
	const next = peer.channel.unary(health.check, { service: "" }, { signal });
	peer.give(
		frame(headers, 4, 5, accepted),
		frame(data, 0, 5, message(Buffer.of(8, 1))),
		frame(headers, 5, 5, fine),
	);
	assert.deepEqual(await next, { status: 1 });
	assert.equal(ofType(peer, reset).length, 1);
	other.cancel();
});

test("a call that was refused ends with its status if the connection goes before it answers", async () => {
	const peer = openPeer();
	const stream = peer.channel.stream(upload.pull, { signal });
	peer.give(frame(headers, 4, 1, accepted), frame(headers, 5, 1, refused));
	await turns();
	peer.end();
	await assert.rejects(stream[Symbol.asyncIterator]().next(), { message: "not here" });
});

test("numbers of streams rise in the order in which they are opened, whenever the limit lets them", async () => {
	const peer = openPeer(settings(3, 0));
	await turns();
	const aborted = new AbortController();
	const calls = [1, 2, 3, 4].map((at) =>
		peer.channel.stream(upload.pull, { signal: at === 2 ? aborted.signal : signal }),
	);
	await turns();
	assert.equal(ofType(peer, headers).length, 0);
	aborted.abort();
	peer.give(settings(3, 2));
	await turns();
	peer.give(frame(reset, 0, 1, uint32(8)));
	await turns();
	assert.deepEqual(
		ofType(peer, headers).map((each) => each.id),
		[1, 3, 5],
	);
	assert.deepEqual(
		ofType(peer, reset),
		[],
		"neither of a stream that was not opened nor in answer to a reset",
	);
	for (const call of calls) {
		call.cancel();
		call.cancel();
	}
	await turns();
	assert.deepEqual(
		ofType(peer, reset).map((each) => each.id),
		[3, 5],
	);
});

test("nothing is opened on a connection whose server goes away", async () => {
	const peer = openPeer(settings(3, 2));
	await turns();
	const calls = [1, 2, 3].map(() => peer.channel.stream(upload.pull, { signal }));
	const errors = calls.map((call) => call[Symbol.asyncIterator]().next());
	peer.give(frame(goAway, 0, 0, Buffer.concat([uint32(1), uint32(0)])));
	await assert.rejects(errors[1] as Promise<unknown>, { code: "unavailable" });
	await assert.rejects(errors[2] as Promise<unknown>, { code: "unavailable" });
	peer.give(frame(headers, 4, 1, accepted), frame(headers, 5, 1, fine));
	await turns();
	assert.deepEqual(
		ofType(peer, headers).map((each) => each.id),
		[1, 3],
	);
	assert.equal((await errors[0])?.done, true);
});

test("a window that the settings make smaller may be below nothing, and is opened from there", async () => {
	const peer = openPeer();
	await turns();
	const stream = peer.channel.stream(upload.pull, { signal });
	void stream.send({ data: Buffer.alloc(200_000) })?.catch(() => undefined);
	await turns();
	assert.equal(sentBytes(peer, 1), 65_535);
	peer.give(
		settings(4, 100),
		frame(windowUpdate, 0, 0, uint32(1 << 20)),
		frame(windowUpdate, 0, 1, uint32(65_435)),
	);
	await turns();
	assert.equal(sentBytes(peer, 1), 65_535);
	peer.give(frame(windowUpdate, 0, 1, uint32(1000)));
	await turns();
	assert.equal(sentBytes(peer, 1), 66_535);
	stream.cancel();
});

test("data counts for the windows with its padding, and on closed streams for the connection's", async () => {
	const peer = openPeer();
	const stream = peer.channel.stream(upload.pull, { signal });
	peer.give(
		frame(headers, 4, 1, accepted),
		frame(data, 8, 1, Buffer.concat([Buffer.of(200), message(Buffer.alloc(0)), Buffer.alloc(200)])),
	);
	await turns();
	assert.deepEqual(
		ofType(peer, windowUpdate)
			.filter((each) => each.id === 1)
			.map((each) => each.payload.readUInt32BE()),
		[201],
	);
	stream.cancel();
	peer.give(...Array.from({ length: 16 }, () => frame(data, 0, 1, Buffer.alloc(1 << 20))));
	await turns();
	peer.give(frame(windowUpdate, 0, 1, uint32(1)), frame(reset, 0, 1, uint32(5)), frame(headers, 5, 1, fine));
	await turns();
	assert.equal(peer.channel.closed.aborted, false);
	assert.ok(
		ofType(peer, windowUpdate).some((each) => each.id === 0 && each.payload.readUInt32BE() >= 16 << 20),
	);
	assert.equal(ofType(peer, reset).length, 1);
});

test("what is wrong with a stream ends the stream, with one reset", async () => {
	const early = encodeHeaders({ ":status": "103" });
	const bad: readonly (readonly [code: number, ...frames: readonly Uint8Array[]])[] = [
		[1, frame(windowUpdate, 0, 1, uint32(0))],
		[3, frame(windowUpdate, 0, 1, uint32(2 ** 31 - 1))],
		[8, frame(data, 0, 1, message(Buffer.of(8)))],
		[8, frame(headers, 5, 1, early)],
		[8, frame(headers, 4, 1, accepted), frame(headers, 4, 1, fine)],
		[8, frame(headers, 4, 1, accepted), frame(data, 1, 1)],
	];
	for (const [index, [code, ...frames]] of bad.entries()) {
		const peer = openPeer();
		const stream = peer.channel.stream(upload.pull, { signal });
		peer.give(...frames);
		await turns();
		assert.deepEqual(
			ofType(peer, reset).map(({ id, payload }) => [id, payload.readUInt32BE()]),
			[[1, code]],
			`case ${index}`,
		);
		await assert.rejects(stream[Symbol.asyncIterator]().next(), { code: "internal" }, `case ${index}`);
		assert.equal(peer.channel.closed.aborted, false, `case ${index}`);
	}
});

test("what is wrong with the connection ends it, and the server is told", async () => {
	const bad: readonly (readonly [code: number, ...frames: readonly Uint8Array[]])[] = [
		// On streams that are idle, of the server, or none.
		[1, frame(data, 0, 3, Buffer.of(0))],
		[1, frame(headers, 4, 3, accepted)],
		[1, frame(headers, 4, 2, accepted)],
		[1, frame(reset, 0, 3, uint32(8))],
		[1, frame(windowUpdate, 0, 3, uint32(1))],
		[1, frame(data, 0, 0)],
		[1, frame(ping, 0, 1, Buffer.alloc(8))],
		[1, frame(4, 0, 1)],
		[1, frame(goAway, 0, 1, Buffer.alloc(8))],
		// Lengths and values.
		[1, frame(ping, 0, 0, Buffer.alloc(7))],
		[1, frame(4, 0, 0, Buffer.alloc(5))],
		[1, frame(4, 1, 0, Buffer.alloc(6))],
		[1, frame(goAway, 0, 0, Buffer.alloc(4))],
		[1, settings(2, 1)],
		[1, settings(5, 16_383)],
		[1, settings(5, 2 ** 24)],
		[3, settings(4, 2 ** 31)],
		[1, frame(windowUpdate, 0, 0, uint32(0))],
		[3, frame(windowUpdate, 0, 1, uint32(2 ** 30)), settings(4, 2 ** 31 - 1)],
		// Padding that is longer than the frame.
		[1, frame(headers, 4, 1, accepted), frame(data, 8, 1, Buffer.of(1))],
		[1, frame(headers, 12, 1, Buffer.of(9, 0))],
		[1, frame(headers, 36, 1, Buffer.alloc(4))],
	];
	for (const [index, [code, ...frames]] of bad.entries()) {
		const peer = openPeer();
		const stream = peer.channel.stream(upload.pull, { signal });
		await turns();
		peer.give(...frames);
		await turns();
		assert.ok(peer.channel.closed.aborted, `case ${index}`);
		assert.deepEqual(
			ofType(peer, goAway).map(({ payload }) => payload.readUInt32BE(4)),
			[code],
			`case ${index}`,
		);
		await assert.rejects(stream[Symbol.asyncIterator]().next(), { code: "unavailable" });
	}
	const silent = openPeer(frame(ping, 0, 0, Buffer.alloc(8)));
	await turns();
	assert.match(String(silent.channel.closed.reason), /does not begin with its settings/);
});

test("headers go on over any number of empty frames", async () => {
	const peer = openPeer();
	const stream = peer.channel.stream(upload.pull, { signal });
	peer.give(frame(headers, 0, 1, accepted));
	for (let at = 0; at < 20; at++) {
		peer.give(...Array.from({ length: 100 }, () => frame(9, 0, 1)));
	}
	peer.give(frame(9, 4, 1), frame(headers, 5, 1, refused));
	await turns();
	peer.give(frame(ping, 1, 0, ofType(peer, ping)[0]?.payload ?? Buffer.alloc(8)));
	await assert.rejects(stream[Symbol.asyncIterator]().next(), { message: "not here" });
});
