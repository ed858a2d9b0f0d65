import assert from "node:assert/strict";
import { test } from "node:test";
import {
	BuildHistoryEventType,
	emptyBuildHistoryRequest,
	emptyDiskUsageRequest,
	emptyPruneRequest,
	emptyUpdateBuildHistoryRequest,
	type StatusResponse,
} from "../api/generated/control.ts";
import type { Channel } from "../api/grpc.ts";
import { content } from "../api/services/content.ts";
import { control } from "../api/services/control.ts";
import type { RefId, UsageRecord } from "../cache/cache.ts";
import { SlipwayError } from "../errors/errors.ts";
import { sha256 } from "../oci/digest.ts";
import type { BuildOptions, BuildRequest } from "./control.ts";
import { emptyResponse, solveRequest, startService } from "./service.fixture.ts";

const never = new AbortController().signal;
const options = { signal: never };
const vertex = sha256("step");

async function all<T>(messages: AsyncIterable<T>): Promise<T[]> {
	const found: T[] = [];
	for await (const message of messages) {
		found.push(message);
	}
	return found;
}

async function failure(promise: Promise<unknown>): Promise<readonly [string, string]> {
	try {
		await promise;
	} catch (error) {
		assert.ok(error instanceof SlipwayError, String(error));
		return [error.code, error.message];
	}
	assert.fail("no error");
}

async function statusOf(channel: Channel, ref: string): Promise<StatusResponse> {
	const stream = channel.stream(control.status, options);
	await stream.send({ Ref: ref });
	stream.closeSend();
	const [time] = (await stream.headers)["buildkit-current-timestamp"] ?? [];
	assert.match(time ?? "", /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
	const messages = await all(stream);
	return {
		vertexes: messages.flatMap(({ vertexes }) => vertexes),
		statuses: messages.flatMap(({ statuses }) => statuses),
		logs: messages.flatMap(({ logs }) => logs),
		warnings: messages.flatMap(({ warnings }) => warnings),
	};
}

async function listen(
	channel: Channel,
	request: Partial<ReturnType<typeof emptyBuildHistoryRequest>>,
): Promise<Awaited<ReturnType<typeof all<Awaited<ReturnType<typeof eventsOf>>[number]>>>> {
	return await eventsOf(channel, request);
}

async function eventsOf(channel: Channel, request: Partial<ReturnType<typeof emptyBuildHistoryRequest>>) {
	const stream = channel.stream(control.listenBuildHistory, options);
	await stream.send({ ...emptyBuildHistoryRequest(), EarlyExit: true, ...request });
	stream.closeSend();
	return await all(stream);
}

/** A build that reports a step with a log line, waits if it is told to, and ends. */
function reporting(wait: Promise<void> = Promise.resolve()) {
	return async (_request: BuildRequest, { progress, signal }: BuildOptions) => {
		const step = { digest: vertex, inputs: [], name: "[1/1] RUN x", cached: false };
		progress.write({ kind: "vertex", vertex: { ...step, started: 1000 } });
		progress.write({
			kind: "log",
			log: { vertex, stream: 1, data: new TextEncoder().encode("hello\n"), timestamp: 1500 },
		});
		const aborted = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
		await Promise.race([wait, aborted]);
		signal.throwIfAborted();
		progress.write({ kind: "vertex", vertex: { ...step, started: 1000, completed: 2000 } });
		return {
			exporterResponse: { "containerimage.digest": "d" },
			metadata: { "refs.platforms": new TextEncoder().encode("{}") },
		};
	};
}

test("Solve answers with what exporters say; Status replays the whole log to who comes later", async () => {
	await using fixture = await startService({ build: reporting() });
	const { channel } = fixture.served;
	const response = await channel.unary(control.solve, solveRequest({ Ref: "b1" }), options);
	assert.deepEqual([...response.ExporterResponse], [["containerimage.digest", "d"]]);
	const status = await statusOf(channel, "b1");
	assert.equal(status.vertexes.at(-1)?.completed?.seconds, 2);
	assert.equal(Buffer.from(status.logs[0]?.msg ?? []).toString(), "hello\n");
});

test("Status asked for before its build begins follows it live, several at once", async () => {
	const end = Promise.withResolvers<void>();
	await using fixture = await startService({ build: reporting(end.promise) });
	const { channel } = fixture.served;
	const early = [statusOf(channel, "b1"), statusOf(channel, "b1")];
	const solving = channel.unary(control.solve, solveRequest({ Ref: "b1" }), options);
	const live = channel.stream(control.status, options);
	await live.send({ Ref: "b1" });
	const { value } = await live[Symbol.asyncIterator]().next();
	assert.equal(value.vertexes[0]?.completed, undefined);
	live.cancel();
	end.resolve();
	await solving;
	for (const status of await Promise.all(early)) {
		assert.equal(status.logs.length, 1);
		assert.equal(status.vertexes.at(-1)?.completed?.seconds, 2);
	}
});

test("a ref that is taken, one that is not known, entitlements and caches that contradict themselves", async () => {
	const end = Promise.withResolvers<void>();
	await using fixture = await startService({ build: reporting(end.promise) });
	const { channel } = fixture.served;
	const solve = (fields: Parameters<typeof solveRequest>[0]): Promise<unknown> =>
		channel.unary(control.solve, solveRequest({ Ref: "x", ...fields }), options);
	const first = solve({ Ref: "b1" });
	assert.deepEqual(await failure(solve({ Ref: "b1" })), ["unknown", "job ID b1 exists"]);
	end.resolve();
	await first;
	assert.deepEqual(await failure(solve({ Entitlements: ["x.y"] })), ["unknown", "unknown entitlement x.y"]);
	const cache = { Type: "local", Attrs: new Map([["dest", "d"]]) };
	const caches = {
		ExportRefDeprecated: "",
		ImportRefsDeprecated: [],
		ExportAttrsDeprecated: new Map(),
		Imports: [],
	};
	assert.deepEqual(await failure(solve({ Cache: { ...caches, Exports: [cache, cache] } })), [
		"unknown",
		"duplicate cache exports [local]",
	]);
	assert.deepEqual(await failure(solve({ CompatibilityVersion: 40 })), [
		"unknown",
		"unsupported compatibility-version 40: upgrade buildkit (max supported: 30)",
	]);
	assert.deepEqual(await failure(solve({ FrontendAttrs: new Map([["attest:other", ""]]) })), [
		"unknown",
		'unknown attestation type "other"',
	]);
	assert.deepEqual(await failure(solve({ FrontendAttrs: new Map([["attest:sbom", ""]]) })), [
		"unimplemented",
		"SBOM attestations are not supported yet: build without --sbom",
	]);
});

test("requests of older clients: one exporter, caches by ref, the epoch for exporters, gateway.v0 of the built-in frontend", async () => {
	const seen: BuildRequest[] = [];
	await using fixture = await startService({
		build: async (request) => {
			seen.push(request);
			return emptyResponse;
		},
	});
	await fixture.served.channel.unary(
		control.solve,
		solveRequest({
			Ref: "b1",
			Frontend: "gateway.v0",
			FrontendAttrs: new Map([
				["source", "dockerfile.v0"],
				["build-arg:SOURCE_DATE_EPOCH", "12"],
			]),
			ExporterDeprecated: "image",
			ExporterAttrsDeprecated: new Map([["name", "n"]]),
			Cache: {
				ExportRefDeprecated: "r/e",
				ExportAttrsDeprecated: new Map([["mode", "max"]]),
				ImportRefsDeprecated: ["r/i"],
				Exports: [
					{ Type: "inline", Attrs: new Map() },
					{ Type: "inline", Attrs: new Map() },
				],
				Imports: [],
			},
			Entitlements: ["device=vendor.com/x,alias=y", "network.host"],
		}),
		options,
	);
	const [request] = seen;
	assert.equal(request?.frontend, "dockerfile.v0");
	assert.deepEqual(request?.frontendOptions, { "build-arg:SOURCE_DATE_EPOCH": "12" });
	assert.deepEqual(request?.exporters, [{ type: "image", attrs: { "source-date-epoch": "12", name: "n" } }]);
	assert.deepEqual(request?.cacheExports, [
		{ type: "inline", attrs: {} },
		{ type: "registry", attrs: { mode: "max", ref: "r/e" } },
	]);
	assert.deepEqual(request?.cacheImports, [{ type: "registry", attrs: { ref: "r/i" } }]);
	assert.deepEqual(request?.entitlements, ["device=vendor.com/x,alias=y", "network.host"]);
});

test("provenance that will not be made is a warning, unless it is wanted only where there is room for it", async () => {
	await using fixture = await startService();
	const { channel } = fixture.served;
	for (const [ref, value, warnings] of [
		["b1", "mode=max", ["provenance attestations are not supported yet: the result has none"]],
		["b2", "mode=min,inline-only=true", []],
		["b3", "disabled=true", []],
	] as const) {
		const FrontendAttrs = new Map([["attest:provenance", value]]);
		await channel.unary(control.solve, solveRequest({ Ref: ref, FrontendAttrs }), options);
		const status = await statusOf(channel, ref);
		assert.deepEqual(
			status.warnings.map(({ short }) => Buffer.from(short).toString()),
			warnings,
		);
	}
});

test("a build ends when its caller, its session or the builder does", async () => {
	const started: (() => void)[] = [];
	await using fixture = await startService({
		build: async (request, build) => {
			started.shift()?.();
			return await reporting(new Promise(() => {}))(request, build);
		},
	});
	const { channel } = fixture.served;
	const begin = async (
		fields: Parameters<typeof solveRequest>[0],
		signal = never,
	): Promise<Promise<unknown>[]> => {
		const running = new Promise<void>((resolve) => started.push(resolve));
		const solving = channel.unary(control.solve, solveRequest(fields), { signal });
		solving.catch(() => {});
		await running;
		return [solving];
	};
	const canceledText = ["canceled", "context canceled"];

	const caller = new AbortController();
	const [first = Promise.resolve()] = await begin({ Ref: "b1" }, caller.signal);
	caller.abort();
	assert.equal((await failure(first))[0], "canceled");

	const session = channel.stream(control.session, {
		signal: never,
		metadata: { "x-docker-expose-session-uuid": ["s1"] },
	});
	session.headers.catch(() => {});
	const [second = Promise.resolve()] = await begin({ Ref: "b2", Session: "s1" });
	session.cancel();
	assert.deepEqual(await failure(second), canceledText);

	const [third = Promise.resolve()] = await begin({ Ref: "b3" });
	assert.equal(fixture.service.running, 1);
	fixture.service.cancelAll("stop");
	assert.deepEqual(await failure(third), canceledText);
	const events = await listen(channel, { Filter: ["status==canceled"] });
	assert.deepEqual(
		events.map(({ record }) => record?.Ref),
		["b1", "b2", "b3"],
	);
});

test("history: who listens sees builds begin and end, then pinning and deletion; logs and errors are blobs", async () => {
	await using fixture = await startService({
		build: async (request, build) => {
			await reporting()(request, build);
			throw new SlipwayError("unknown", "step failed", { details: [{ kind: "vertex", digest: vertex }] });
		},
	});
	const { channel } = fixture.served;
	const live = channel.stream(control.listenBuildHistory, options);
	await live.send(emptyBuildHistoryRequest());
	await live.headers;
	const next = async () => {
		const { value } = await live[Symbol.asyncIterator]().next();
		return value as Awaited<ReturnType<typeof eventsOf>>[number];
	};
	assert.deepEqual(await failure(channel.unary(control.solve, solveRequest({ Ref: "b1" }), options)), [
		"unknown",
		"step failed",
	]);
	assert.equal((await next()).type, BuildHistoryEventType.STARTED);
	const { type, record } = await next();
	assert.equal(type, BuildHistoryEventType.COMPLETE);
	assert.deepEqual(record?.error, { code: 2, message: "step failed", details: [] });
	assert.deepEqual(
		[record?.numTotalSteps, record?.numCompletedSteps, record?.numCachedSteps, record?.Generation],
		[1, 1, 0, 0],
	);
	const read = channel.stream(content.read, options);
	await read.send({ digest: record?.externalError?.digest ?? "", offset: 0, size: 0 });
	const [blob] = await all(read);
	assert.equal(blob?.data.length, record?.externalError?.size);

	const update = (fields: Partial<ReturnType<typeof emptyUpdateBuildHistoryRequest>>): Promise<unknown> =>
		channel.unary(control.updateBuildHistory, { ...emptyUpdateBuildHistoryRequest(), ...fields }, options);
	await update({ Ref: "b1", Pinned: true });
	const pinned = await next();
	assert.deepEqual([pinned.record?.pinned, pinned.record?.Generation], [true, 1]);
	await update({ Ref: "b1", Finalize: true });
	await update({ Ref: "b1", Delete: true });
	assert.equal((await next()).type, BuildHistoryEventType.DELETED);
	live.cancel();
	assert.deepEqual(await listen(channel, {}), []);
	assert.deepEqual(await failure(update({ Ref: "b1", Pinned: true })), [
		"unknown",
		"failed to retrieve ref b1: file does not exist",
	]);
	assert.deepEqual(await failure(all(readBlob(channel, record?.logs?.digest ?? ""))), [
		"not-found",
		`content digest ${record?.logs?.digest}: not found`,
	]);
});

function readBlob(channel: Channel, digest: string): AsyncIterable<unknown> {
	const stream = channel.stream(content.read, options);
	void stream.send({ digest, offset: 0, size: 0 });
	stream.closeSend();
	return stream;
}

test("the content API only reads", async () => {
	await using fixture = await startService();
	const { channel } = fixture.served;
	const digest = sha256("x");
	assert.deepEqual(await failure(channel.unary(content.delete, { digest }, options)), [
		"unknown",
		"read-only content store",
	]);
	assert.deepEqual(await failure(channel.unary(content.info, { digest: "x" }, options)), [
		"invalid-argument",
		'"x" failed validation',
	]);
});

test("the content API lists blobs by containerd's filters", async () => {
	await using fixture = await startService();
	const { channel } = fixture.served;
	const list = async (filters: string[]): Promise<readonly unknown[]> => {
		const stream = channel.stream(content.list, options);
		void stream.send({ filters });
		stream.closeSend();
		return await Array.fromAsync(stream);
	};
	assert.deepEqual(await list([`digest==${sha256("x")}`]), []);
	assert.deepEqual(await failure(list(["size>0"])), [
		"invalid-argument",
		'filters: parse error: [size >|>|< 0]: expected an operator ("=="|"!="|"~="): invalid argument',
	]);
});

test("disk usage and prune take containerd's filters", async () => {
	const record: UsageRecord = {
		id: "r1" as RefId,
		bytes: 300,
		inodes: 1,
		mutable: false,
		inUse: false,
		shared: false,
		parents: [],
		createdAt: 1000,
		lastUsedAt: undefined,
		usageCount: 2,
		description: "step",
		recordType: "regular",
	};
	const usage = [record, { ...record, id: "r2" as RefId, recordType: "source.local" as const }];
	await using fixture = await startService({ usage });
	const { channel } = fixture.served;
	const used = await channel.unary(
		control.diskUsage,
		{ ...emptyDiskUsageRequest(), filter: ["type==source.local"] },
		options,
	);
	assert.deepEqual(
		used.record.map(({ ID, Size, RecordType }) => [ID, Size, RecordType]),
		[["r2", 300, "source.local"]],
	);
	const prune = async (fields: Partial<ReturnType<typeof emptyPruneRequest>>): Promise<string[]> => {
		const stream = channel.stream(control.prune, options);
		await stream.send({ ...emptyPruneRequest(), ...fields });
		stream.closeSend();
		return (await all(stream)).map(({ ID }) => ID);
	};
	assert.deepEqual(await prune({}), ["r1", "r2"]);
	assert.deepEqual(await prune({ maxUsedSpace: 300 }), ["r1"]);
	// 100 of 150 bytes are free.
	assert.deepEqual(await prune({ minFreeSpace: 150 }), ["r1"]);
	assert.deepEqual(await prune({ minFreeSpace: 50 }), []);
	assert.deepEqual(await prune({ filter: ["id~=^r2"] }), ["r2"]);
	assert.deepEqual(await failure(prune({ filter: ["id=r2"] })), [
		"unknown",
		'failed to parse prune filters [id=r2]: filters: parse error: [id >|=|< r2]: unsupported operator "=": invalid argument',
	]);
});

test("workers are listed by filter", async () => {
	await using fixture = await startService();
	const { channel } = fixture.served;
	const ids = async (...filter: string[]): Promise<string[]> =>
		(await channel.unary(control.listWorkers, { filter }, options)).record.map(({ ID }) => ID);
	assert.deepEqual(await ids(), ["worker1"]);
	assert.deepEqual(await ids('labels."org.example"==yes'), ["worker1"]);
	assert.deepEqual(await ids("id==other"), []);
	assert.equal((await channel.unary(control.info, {}, options)).buildkitVersion?.version, "v");
});

test("a session that does not come", async () => {
	await using fixture = await startService();
	const { channel } = fixture.served;
	const waiting = channel.unary(control.solve, solveRequest({ Ref: "b1", Session: "s9" }), {
		signal: never,
		timeoutMs: 50,
	});
	assert.equal((await failure(waiting))[0], "deadline-exceeded");
});
