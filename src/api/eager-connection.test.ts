import assert from "node:assert/strict";
import { once } from "node:events";
import { Duplex, duplexPair } from "node:stream";
import { test } from "node:test";
import { EagerConnection } from "./eager-connection.ts";

/** A connection whose other side takes nothing until `release`. */
function stuck(): { readonly connection: Duplex; release(): void } {
	const waiting: (() => void)[] = [];
	let open = false;
	const connection = new Duplex({
		read() {},
		write(_chunk, _encoding, done) {
			if (open) {
				done();
			} else {
				waiting.push(done);
			}
		},
	});
	return {
		connection,
		release() {
			open = true;
			for (const done of waiting.splice(0)) {
				done();
			}
		},
	};
}

test("EagerConnection: writes are taken at once, the backlog tells how many wait, listeners hear once that few do", async () => {
	const { connection, release } = stuck();
	const eager = new EagerConnection(connection);
	let written = 0;
	for (let index = 0; index < 4; index++) {
		eager.write(Buffer.alloc(1 << 20), () => written++);
	}
	await new Promise((resolve) => setImmediate(resolve));
	assert.equal(written, 4);
	assert.equal(eager.backlog, 4 << 20);
	let heard = 0;
	eager.whenLow(() => heard++);
	assert.equal(heard, 0);
	release();
	await new Promise((resolve) => setImmediate(resolve));
	assert.equal(eager.backlog, 0);
	assert.equal(heard, 1);
	eager.write(Buffer.alloc(1));
	await new Promise((resolve) => setImmediate(resolve));
	assert.equal(heard, 1);
	eager.destroy();
});

test("EagerConnection: a peer that never takes anything is cut off", async () => {
	const { connection } = stuck();
	const eager = new EagerConnection(connection);
	const chunk = Buffer.alloc(8 << 20);
	const failed = once(eager, "error");
	for (let index = 0; index < 9; index++) {
		eager.write(chunk);
	}
	assert.match(String((await failed)[0]), /does not read/);
	assert.ok(connection.destroyed);
});

test("EagerConnection: bytes, ends and reading that waits, both ways", async () => {
	const [near, far] = duplexPair();
	const eager = new EagerConnection(near);
	eager.end("to the far side");
	far.write("to the near side, ");
	far.end("in two parts");
	assert.equal(Buffer.concat(await eager.toArray()).toString(), "to the near side, in two parts");
	assert.equal(Buffer.concat(await far.toArray()).toString(), "to the far side");
	const [other] = duplexPair();
	other.destroy();
	assert.ok(new EagerConnection(other).destroyed);
});
