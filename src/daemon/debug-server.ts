import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { Session } from "node:inspector/promises";
import type { Duplex } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { getHeapSnapshot, getHeapSpaceStatistics, getHeapStatistics } from "node:v8";
import type { CallRecord, RunningCall } from "../api/grpc.ts";
import { SlipwayError, toError } from "../errors/errors.ts";
import { maxConfigBytes } from "../remotecache/config.ts";
import type { KeyGraph } from "./debug-cache.ts";
import { collectGarbage } from "./garbage.ts";
import { contentType, type MetricsRegistry } from "./metrics.ts";

/**
 * What a person who looks into a running daemon asks, over HTTP, at the paths of BuildKit's `--debugaddr`; profiles are in the forms
 * of Node's tools. Whoever reaches it may slow the daemon down and read its memory, secrets of builds among it: who that is the
 * address decides.
 */
export interface DebugServer extends AsyncDisposable {
	/** For a listener. */
	accept(connection: Duplex): void;
	/** Kept for `/debug/requests`. */
	addCall(call: CallRecord): void;
}

export interface DebugServerOptions {
	readonly metrics: MetricsRegistry;
	readonly runningCalls: () => readonly RunningCall[];
	readonly log: (message: string) => void;
	/** The builder's own cache keys. */
	readonly cacheKeys: () => KeyGraph;
}

interface Page {
	readonly path: string;
	readonly about: string;
	/** Default: whatever asks. */
	readonly method?: "POST";
	readonly answer: (
		query: URLSearchParams,
		response: ServerResponse,
		request: IncomingMessage,
	) => Promise<void>;
}

/** What BuildKit has at its address, and why it is not here. */
const absentPages: Readonly<Record<string, string>> = {
	"/debug/pprof/goroutine": "Node has no goroutines: /debug/requests has the calls that run",
	"/debug/pprof/threadcreate":
		"Node's threads are few and known: /debug/pprof/profile has what the main one does",
	"/debug/pprof/block": "Node's main thread waits for nothing: /debug/pprof/profile has what it does",
	"/debug/pprof/mutex": "Node's main thread waits for no lock: /debug/pprof/profile has what it does",
	"/debug/pprof/symbol": "Node's profiles have the names of functions",
	"/debug/pprof/trace": "Node has no execution trace: /debug/pprof/profile has what the main thread does",
	"/debug/flight/trace": "Node has no flight recorder: /debug/pprof/profile has what the main thread does",
	"/debug/flight/trace/start": "Node has no flight recorder",
	"/debug/flight/trace/stop": "Node has no flight recorder",
	"/debug/flight/trace/set_period": "Node has no flight recorder",
	"/debug/events": "nothing is logged here: use --debug, and /debug/requests for calls",
	"/debug/cache/all": "what digests of cache keys were made of is not kept: /debug/cache/store has the keys",
	"/debug/cache/lookup":
		"what digests of cache keys were made of is not kept: /debug/cache/store has the keys",
};

const keptCalls = 100;
const maxProfileSeconds = 600;

export function createDebugServer(options: DebugServerOptions): DebugServer {
	const recent: CallRecord[] = [];
	const pages = pagesOf(options, recent);
	// Node knows the connections only of servers that listen themselves.
	const connections = new Set<Duplex>();
	const server: Server = createServer((request, response) => {
		void answer(pages, request, response);
	});
	return {
		accept(connection) {
			connections.add(connection);
			connection.once("close", () => connections.delete(connection));
			server.emit("connection", connection);
		},
		addCall(call) {
			recent.push(call);
			if (recent.length > keptCalls) {
				recent.shift();
			}
		},
		async [Symbol.asyncDispose]() {
			for (const connection of connections) {
				connection.destroy();
			}
		},
	};
}

async function answer(
	pages: readonly Page[],
	request: IncomingMessage,
	response: ServerResponse,
): Promise<void> {
	const url = URL.parse(request.url ?? "", "http://localhost");
	const page = pages.find(({ path }) => path === url?.pathname);
	try {
		const absent = absentPages[url?.pathname ?? ""];
		if (absent !== undefined) {
			text(response, 501, `${url?.pathname} is not implemented: ${absent}\n`);
		} else if (url === null || page === undefined) {
			text(response, 404, `404 page not found\n\n${index(pages)}`);
		} else if (request.method !== "POST" && (request.method !== "GET" || page.method === "POST")) {
			text(response, 405, "method not allowed\n");
		} else {
			await page.answer(url.searchParams, response, request);
		}
	} catch (thrown) {
		const error = toError(thrown);
		if (response.headersSent) {
			response.destroy();
		} else {
			text(response, error.code === "invalid-argument" ? 400 : 500, `${error.message}\n`);
		}
	}
}

function pagesOf(
	{ metrics, runningCalls, log, cacheKeys }: DebugServerOptions,
	recent: readonly CallRecord[],
): readonly Page[] {
	const profiler = createProfiler();
	const pages: Page[] = [
		{
			path: "/metrics",
			about: "counts and measures for Prometheus",
			async answer(_query, response) {
				const body = await metrics.text();
				response.writeHead(200, { "content-type": contentType }).end(body);
			},
		},
		{
			path: "/debug/vars",
			about: "command line and memory, as JSON",
			async answer(_query, response) {
				json(response, {
					cmdline: process.argv,
					memstats: process.memoryUsage(),
					heap: getHeapStatistics(),
					spaces: getHeapSpaceStatistics(),
					resources: process.resourceUsage(),
					versions: process.versions,
					uptimeSeconds: process.uptime(),
				});
			},
		},
		{
			path: "/debug/requests",
			about: "calls that run, and the last that ended",
			async answer(_query, response) {
				text(response, 200, describeCalls(runningCalls(), recent));
			},
		},
		{
			path: "/debug/gc",
			about: "collects garbage of the JavaScript heap",
			async answer(_query, response) {
				collectGarbage();
				log("triggered GC from debug endpoint");
				text(response, 200, "");
			},
		},
		{
			path: "/debug/cache/store",
			about: "the graph of cache keys; as JSON for those who accept application/json",
			async answer(_query, response, request) {
				await keyGraph(cacheKeys(), response, request);
			},
		},
		{
			path: "/debug/cache/load",
			about: "POST the config of an exported cache: its graph, likewise",
			method: "POST",
			async answer(_query, response, request) {
				const { graphOfConfig } = await import("./debug-cache.ts");
				await keyGraph(graphOfConfig(await bodyOf(request)), response, request);
			},
		},
		{
			path: "/debug/pprof/",
			about: "this list",
			async answer(_query, response) {
				text(response, 200, index(pages));
			},
		},
		{
			path: "/debug/pprof/cmdline",
			about: "command line, parts separated by NUL",
			async answer(_query, response) {
				text(response, 200, process.argv.join("\0"));
			},
		},
		{
			path: "/debug/pprof/profile",
			about: "CPU profile of ?seconds=30, a .cpuprofile for Chrome's and VS Code's tools",
			async answer(query, response) {
				const profile = await profiler.cpu(seconds(query));
				attachment(response, "slipway.cpuprofile");
				response.end(JSON.stringify(profile));
			},
		},
		{
			path: "/debug/pprof/allocs",
			about: "who allocates, sampled for ?seconds=30, a .heapprofile",
			async answer(query, response) {
				const profile = await profiler.allocations(seconds(query));
				attachment(response, "slipway.heapprofile");
				response.end(JSON.stringify(profile));
			},
		},
		{
			path: "/debug/pprof/heap",
			about: "all of the JavaScript heap, a .heapsnapshot; the daemon stands still meanwhile",
			async answer(_query, response) {
				attachment(response, "slipway.heapsnapshot");
				await pipeline(getHeapSnapshot(), response);
			},
		},
	];
	return pages;
}

function index(pages: readonly Page[]): string {
	return pages.map(({ path, about }) => `${path.padEnd(24)}${about}\n`).join("");
}

function text(response: ServerResponse, status: number, body: string): void {
	response
		.writeHead(status, { "content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff" })
		.end(body);
}

function json(response: ServerResponse, value: unknown): void {
	response
		.writeHead(200, { "content-type": "application/json" })
		.end(`${JSON.stringify(value, undefined, 2)}\n`);
}

async function keyGraph(graph: KeyGraph, response: ServerResponse, request: IncomingMessage): Promise<void> {
	const { keyGraphJson, keyGraphText } = await import("./debug-cache.ts");
	if (request.headers.accept === "application/json") {
		response.writeHead(200, { "content-type": "application/json" }).end(keyGraphJson(graph));
	} else {
		text(response, 200, keyGraphText(graph));
	}
}

async function bodyOf(request: IncomingMessage): Promise<Uint8Array> {
	const parts: Buffer[] = [];
	let size = 0;
	for await (const part of request) {
		size += (part as Buffer).length;
		if (size > maxConfigBytes) {
			throw new SlipwayError("invalid-argument", `the body has more than ${maxConfigBytes} bytes`);
		}
		parts.push(part as Buffer);
	}
	return Buffer.concat(parts);
}

function attachment(response: ServerResponse, name: string): void {
	response.writeHead(200, {
		"content-type": "application/octet-stream",
		"content-disposition": `attachment; filename="${name}"`,
	});
}

function seconds(query: URLSearchParams): number {
	const value = query.get("seconds") ?? "30";
	const count = Number(value);
	if (!(count > 0 && count <= maxProfileSeconds)) {
		throw new SlipwayError(
			"invalid-argument",
			`seconds is ${JSON.stringify(value)}, but must be above 0 and at most ${maxProfileSeconds}`,
		);
	}
	return count;
}

function describeCalls(running: readonly RunningCall[], recent: readonly CallRecord[]): string {
	const nowMs = performance.timeOrigin + performance.now();
	const lines = [
		`running: ${running.length}`,
		...running.map(({ path, startedMs }) => `  ${duration(nowMs - startedMs)}  ${path}`),
		`ended, the last ${recent.length}:`,
		...recent.toReversed().map(({ path, startedMs, endedMs, error }) => {
			const outcome = error === undefined ? "ok" : `${error.code}: ${error.message}`;
			return `  ${new Date(startedMs).toISOString()}  ${duration(endedMs - startedMs)}  ${path}  ${outcome}`;
		}),
	];
	return `${lines.join("\n")}\n`;
}

function duration(ms: number): string {
	return `${(ms / 1000).toFixed(3)}s`.padStart(10);
}

interface Profiler {
	cpu(seconds: number): Promise<unknown>;
	allocations(seconds: number): Promise<unknown>;
}

/** One profile at a time: the process has one profiler. */
function createProfiler(): Profiler {
	let busy = false;
	const run = async (work: (session: Session) => Promise<unknown>): Promise<unknown> => {
		if (busy) {
			throw new SlipwayError("failed-precondition", "another profile is being taken");
		}
		busy = true;
		const session = new Session();
		try {
			session.connect();
			return await work(session);
		} finally {
			session.disconnect();
			busy = false;
		}
	};
	return {
		cpu: (count) =>
			run(async (session) => {
				await session.post("Profiler.enable");
				await session.post("Profiler.start");
				await sleep(count * 1000);
				return (await session.post("Profiler.stop")).profile;
			}),
		allocations: (count) =>
			run(async (session) => {
				await session.post("HeapProfiler.startSampling");
				await sleep(count * 1000);
				return (await session.post("HeapProfiler.stopSampling")).profile;
			}),
	};
}
