import assert from "node:assert/strict";
import { test } from "node:test";
import type { ProgressEvent } from "../progress/progress.ts";
import { announcedAuth } from "./announced-auth.ts";
import type { TokenAuthority } from "./local-session.ts";

const { signal } = new AbortController();

test("announcedAuth: a login is shown once, a token for one each time, and none of a registry without one", async () => {
	const events: ProgressEvent[] = [];
	const tokens: TokenAuthority = {
		publicKey: async () => new Uint8Array(32),
		sign: async () => new Uint8Array(1),
		fetch: async () => ({ token: "t", expiresInSeconds: 60 }),
	};
	const { auth, tokenAuthority } = announcedAuth(
		{
			auth: {
				credentials: async (host) =>
					host === "known" ? { kind: "basic", username: "u", password: "p" } : undefined,
			},
			tokenAuthority: tokens,
		},
		{ write: (event) => void events.push(event) },
	);
	for (const host of ["known", "known", "other"]) {
		await auth?.credentials(host, { signal });
		await tokenAuthority?.fetch(
			{ host, realm: "https://r", service: "s", scopes: ["repository:a/b:pull", "x"] },
			{ signal },
		);
	}
	const vertices = events.flatMap((event) => (event.kind === "vertex" ? [event.vertex] : []));
	assert.deepEqual(
		vertices.filter(({ completed }) => completed !== undefined).map(({ name }) => name),
		[
			"[auth] sharing credentials for known",
			"[auth] a/b:pull x token for known",
			"[auth] a/b:pull x token for known",
		],
	);
	assert.equal(vertices.filter(({ completed }) => completed === undefined).length, 3);
	assert.deepEqual(announcedAuth({}, { write: () => {} }), {});
});
