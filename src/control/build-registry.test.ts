import assert from "node:assert/strict";
import { test } from "node:test";
import type { GatewayService } from "../frontend/gateway/gateway-service.ts";
import { createBuildRegistry } from "./build-registry.ts";

const never = new AbortController().signal;
const gateway = {} as GatewayService;

test("find: a build that is there, and one that comes a moment later", async () => {
	const builds = createBuildRegistry();
	const early = builds.find("a", { signal: never });
	const also = builds.find("a", { signal: never });
	const registered = builds.register("a", gateway);
	assert.equal(await early, gateway);
	assert.equal(await also, gateway);
	assert.equal(await builds.find("a", { signal: never }), gateway);
	registered[Symbol.dispose]();
});

test("find: a build that does not come is an unknown job", async (context) => {
	context.mock.timers.enable({ apis: ["setTimeout"] });
	const builds = createBuildRegistry();
	const found = builds.find("a", { signal: never });
	context.mock.timers.tick(3000);
	await assert.rejects(found, { code: "not-found", message: "no such job a" });
});

test("find: who is gone waits no more", async () => {
	const end = new AbortController();
	const found = createBuildRegistry().find("a", { signal: end.signal });
	end.abort();
	await assert.rejects(found, { code: "canceled" });
	await assert.rejects(createBuildRegistry().find("a", { signal: end.signal }), { code: "canceled" });
});
