import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import { test } from "node:test";
import { SlipwayError } from "../errors/errors.ts";
import { createBuilderMetrics } from "./builder-metrics.ts";
import { createDebugServer } from "./debug-server.ts";
import { createMetrics } from "./metrics.ts";

test("createMetrics: counters, gauges and histograms as Prometheus reads them", async () => {
	const metrics = createMetrics();
	const counter = metrics.counter("c_total", "With a \\ and\na line.");
	counter.add(1, { a: 'x"y\\\n' });
	counter.add(2, { a: 'x"y\\\n' });
	counter.add(0.5);
	metrics.counter("unused_total", "Nothing yet.");
	metrics.gauge("g", "Now.", () => [
		{ labels: { k: "1" }, value: Number.POSITIVE_INFINITY },
		{ labels: { k: "2" }, value: -3 },
	]);
	metrics.gauge("broken", "Fails.", () => {
		throw new Error("no");
	});
	metrics.observedCounter("o_total", "Grows.", async () => 7);
	const histogram = metrics.histogram("h", "Times.", [1, 2]);
	for (const value of [0.5, 1, 1.5, 99]) {
		histogram.observe(value, { m: "a" });
	}
	assert.equal(
		await metrics.text(),
		`# HELP c_total With a \\\\ and\\na line.
# TYPE c_total counter
c_total{a="x\\"y\\\\\\n"} 3
c_total 0.5
# HELP g Now.
# TYPE g gauge
g{k="1"} +Inf
g{k="2"} -3
# HELP o_total Grows.
# TYPE o_total counter
o_total 7
# HELP h Times.
# TYPE h histogram
h_bucket{m="a",le="1"} 2
h_bucket{m="a",le="2"} 3
h_bucket{m="a",le="+Inf"} 4
h_sum{m="a"} 102
h_count{m="a"} 4
`,
	);
});

test("the debug server: metrics of a builder, variables, calls, profiles, and what it does not have", async () => {
	const metrics = createBuilderMetrics({
		cache: { usage: async () => [] },
		running: () => 2,
		connections: () => 1,
		version: { version: "v1", revision: "r" },
	});
	metrics.addBuild({
		startedMs: 0,
		endedMs: 1500,
		error: new SlipwayError("not-found", "x"),
		steps: 5,
		cachedSteps: 2,
		completedSteps: 4,
		warnings: 1,
	});
	const call = { path: "/a.B/C", metadata: {}, startedMs: 0, endedMs: 20, error: undefined };
	metrics.addCall(call);
	const logged: string[] = [];
	await using debug = createDebugServer({
		metrics: metrics.registry,
		runningCalls: () => [{ path: "/a.B/Running", metadata: {}, startedMs: Date.now() }],
		log: (message) => logged.push(message),
		cacheKeys: () => ({
			roots: ["random:aa", "sha256:bb"],
			links: [
				{ from: "sha256:bb", link: { input: 0, output: 0, digest: "sha256:op" }, to: "x" },
				{ from: "random:aa", link: { input: 1, output: 0, digest: "sha256:op" }, to: "x" },
			],
		}),
	});
	debug.addCall({ ...call, error: new SlipwayError("canceled", "context canceled") });
	const listener = createServer((socket) => debug.accept(socket)).listen(0, "127.0.0.1");
	await once(listener, "listening");
	const { port } = listener.address() as { readonly port: number };
	const get = async (path: string, method = "GET") => {
		const response = await fetch(`http://127.0.0.1:${port}${path}`, { method });
		return {
			status: response.status,
			type: response.headers.get("content-type"),
			text: await response.text(),
		};
	};
	try {
		const scraped = await get("/metrics");
		assert.equal(scraped.type, "text/plain; version=0.0.4; charset=utf-8");
		for (const expected of [
			'buildkit_builds_total{status="failure",error_code="NotFound"} 1',
			'buildkit_builds_steps_total{kind="cached"} 2',
			'buildkit_build_duration_seconds_sum{status="failure"} 1.5',
			'rpc_server_call_duration_seconds_count{rpc_method="a.B/C",rpc_response_status_code="OK",rpc_system_name="grpc"} 1',
			"slipway_builds_running 2",
			'slipway_cache_bytes{state="idle"} 0',
		]) {
			assert.ok(scraped.text.split("\n").includes(expected), expected);
		}
		assert.match(scraped.text, /^process_resident_memory_bytes \d+$/m);
		assert.match(scraped.text, /^process_open_fds \d+$/m);
		assert.ok(JSON.parse((await get("/debug/vars")).text).memstats.rss > 0);
		assert.match(
			(await get("/debug/requests")).text,
			/running: 1\n.*\/a\.B\/Running\n.*\n.*canceled: context canceled\n$/,
		);
		assert.equal((await get("/debug/gc")).status, 200);
		assert.deepEqual(logged, ["triggered GC from debug endpoint"]);
		const [profile, busy] = await Promise.all([
			get("/debug/pprof/profile?seconds=0.05"),
			get("/debug/pprof/allocs?seconds=0.05"),
		]);
		assert.ok(JSON.parse(profile.text).nodes.length > 0);
		assert.match(busy.text, /another profile/);
		assert.ok("head" in JSON.parse((await get("/debug/pprof/allocs?seconds=0.01")).text));
		assert.match((await get("/debug/pprof/")).text, /^\/debug\/pprof\/heap {5}/m);
		assert.equal(
			(await get("/debug/cache/store")).text,
			`ID: 1 (random)\nDigest: sha256:aa\nChildren:\n  Input 0:\t 2\n
ID: 2\nParents:\n  Input 0:\t3\tsha256:op\n  Input 1:\t1\tsha256:op\n
ID: 3\nDigest: sha256:bb\nChildren:\n  Input 0:\t 2\n\n`,
		);
		const config = {
			records: [
				{ digest: "sha256:bb" },
				{ digest: "sha256:op", inputs: [[{ link: 0, selector: "sha256:s" }]] },
			],
		};
		const loaded = await fetch(`http://127.0.0.1:${port}/debug/cache/load`, {
			method: "POST",
			headers: { accept: "application/json" },
			body: JSON.stringify(config),
		});
		assert.deepEqual(await loaded.json(), [
			{ id: 1, digest: "sha256:bb", children: { 0: { 2: {} } } },
			{ id: 2, parents: [{ input: 0, output: 0, digest: "sha256:op", selector: "sha256:s", target: 1 }] },
		]);
		assert.equal((await get("/debug/cache/load")).status, 405);
		assert.equal((await get("/debug/cache/load", "POST")).status, 400);
		for (const absent of ["/debug/pprof/goroutine", "/debug/events", "/debug/cache/lookup"]) {
			const answered = await get(absent);
			assert.equal(answered.status, 501);
			assert.match(answered.text, /is not implemented: .*\n$/);
		}
		for (const wrong of ["0", "x", "1e9"]) {
			assert.equal((await get(`/debug/pprof/profile?seconds=${wrong}`)).status, 400);
		}
		assert.equal((await get("/nothing")).status, 404);
		assert.equal((await get("/metrics", "DELETE")).status, 405);
	} finally {
		listener.close();
	}
});
