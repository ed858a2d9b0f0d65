import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "../../llb/load.ts";
import type { State } from "../../llb/state.ts";
import { createHostKeys } from "./host-keys.ts";

function sourceAttrs(state: State): ReadonlyMap<string, string> {
	const [source] = [...load(state.marshal()).ops.values()].flatMap(({ op }) =>
		op.kind === "source" ? [op.attrs] : [],
	);
	return source ?? new Map();
}

test("git sources by ssh have the key of their server, which is asked once", async () => {
	const asked: string[] = [];
	const keys = createHostKeys(async (host) => {
		asked.push(host);
		return `${host} ssh-ed25519 AAAA`;
	});
	const states = ["git@example.com:a/b.git", "ssh://git@example.com/c.git", "ssh://u@h:2222/d"].map((url) =>
		keys.git(url, {}),
	);
	const http = keys.git("https://example.com/e.git", {});
	await keys.settled();
	assert.deepEqual(asked, ["example.com", "h:2222"]);
	assert.deepEqual(
		states.map((state) => sourceAttrs(state).get("git.knownsshhosts")),
		["example.com ssh-ed25519 AAAA", "example.com ssh-ed25519 AAAA", "h:2222 ssh-ed25519 AAAA"],
	);
	assert.equal(sourceAttrs(http).has("git.knownsshhosts"), false);
});

test("a server that does not answer leaves the attribute out", async () => {
	const keys = createHostKeys(() => Promise.reject(new Error("no route")));
	const state = keys.git("git@example.com:a/b.git", { ref: "main" });
	await keys.settled();
	const attrs = sourceAttrs(state);
	assert.equal(attrs.has("git.knownsshhosts"), false);
	assert.equal(attrs.get("git.mountsshsock"), "default");
});
