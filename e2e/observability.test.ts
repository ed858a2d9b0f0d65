import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, request, type Server } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type BuildHistoryRecord, emptyBuildHistoryRequest } from "../src/api/generated/control.ts";
import { ExportTraceServiceRequest } from "../src/api/generated/otlp/collector.ts";
import { ExportMetricsServiceRequest } from "../src/api/generated/otlp/metrics-collector.ts";
import { emptySpan } from "../src/api/generated/otlp/trace.ts";
import { openChannel } from "../src/api/grpc-client.ts";
import { content } from "../src/api/services/content.ts";
import { control } from "../src/api/services/control.ts";
import { trace } from "../src/api/services/trace.ts";
import { DaemonBench, type RunningDaemon, requireClients } from "./support/daemon.ts";
import { busyboxBase, Workbench } from "./support/slipway.ts";

const signal = new AbortController().signal;

interface CollectedSpan {
	readonly service: string;
	readonly name: string;
	readonly traceId: string;
	readonly spanId: string;
	readonly parentId: string;
	readonly error: string;
}

/** What collectors do: takes spans and metrics over HTTP. */
class Collector implements AsyncDisposable {
	readonly spans: CollectedSpan[] = [];
	/** Names. */
	readonly metrics = new Set<string>();
	readonly #server: Server = createServer(async (request, response) => {
		const parts: Uint8Array[] = [];
		for await (const part of request) {
			parts.push(part);
		}
		if (request.url === "/v1/metrics") {
			const { resourceMetrics } = ExportMetricsServiceRequest.decode(Buffer.concat(parts));
			for (const { name } of resourceMetrics.flatMap(({ scopeMetrics }) =>
				scopeMetrics.flatMap(({ metrics }) => metrics),
			)) {
				this.metrics.add(name);
			}
			response.end();
			return;
		}
		for (const { resource, scopeSpans } of ExportTraceServiceRequest.decode(Buffer.concat(parts))
			.resourceSpans) {
			const service = resource?.attributes.find(({ key }) => key === "service.name")?.value?.value;
			for (const span of scopeSpans.flatMap(({ spans }) => spans)) {
				this.spans.push({
					service: service?.$case === "stringValue" ? service.value : "",
					name: span.name,
					traceId: Buffer.from(span.traceId).toString("hex"),
					spanId: Buffer.from(span.spanId).toString("hex"),
					parentId: Buffer.from(span.parentSpanId).toString("hex"),
					error: span.status?.message ?? "",
				});
			}
		}
		response.end();
	});

	async listen(): Promise<string> {
		this.#server.listen(0, "127.0.0.1");
		await once(this.#server, "listening");
		return `http://127.0.0.1:${(this.#server.address() as { readonly port: number }).port}`;
	}

	async [Symbol.asyncDispose](): Promise<void> {
		this.#server.closeAllConnections();
		this.#server.close();
	}
}

before(requireClients);

describe("a daemon that is watched", () => {
	const bench = new DaemonBench();
	const collector = new Collector();
	let daemon: RunningDaemon;
	const debugSocket = join(bench.dir, "debug.sock");
	after(async () => {
		await bench[Symbol.asyncDispose]();
		await collector[Symbol.asyncDispose]();
	});
	before(async () => {
		daemon = await bench.startDaemon({
			flags: [
				"--debugaddr",
				`unix://${debugSocket}`,
				"--debug",
				"--log-format",
				"json",
				"--allow-insecure-entitlement",
				"network.host",
			],
			env: {
				OTEL_EXPORTER_OTLP_ENDPOINT: await collector.listen(),
				OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf",
				OTEL_SERVICE_NAME: "watched",
			},
		});
		await bench.client(["docker-buildx", "create", "--name", "slip", "--driver", "remote", bench.address]);
		const args = [
			"docker-buildx",
			"--builder",
			"slip",
			"build",
			"--progress",
			"plain",
			"-o",
			"type=cacheonly",
		];
		await bench.client([...args, bench.context({ Dockerfile: "FROM scratch\nCOPY Dockerfile /a\n" })]);
		const bad = bench.context({ Dockerfile: "FROM scratch\nCOPY nothing /a\n" });
		assert.equal((await bench.tryClient([...args, bad]).finished).code, 1);
	});

	test("metrics count builds, steps and calls; pages for people", async () => {
		const get = async (path: string): Promise<string> => {
			const [response] = (await once(request({ socketPath: debugSocket, path }).end(), "response")) as [
				IncomingMessage,
			];
			return Buffer.concat(await response.toArray()).toString();
		};
		const metrics = await get("/metrics");
		for (const line of [
			/^buildkit_builds_total\{status="success"\} 1$/m,
			/^buildkit_builds_total\{status="failure",error_code="Unknown"\} 1$/m,
			/^buildkit_builds_steps_total\{kind="total"\} [1-9]\d*$/m,
			/^rpc_server_call_duration_seconds_count\{rpc_method="moby.buildkit.v1.Control\/Solve",rpc_response_status_code="OK",rpc_system_name="grpc"\} [1-9]/m,
			/^slipway_builds_running 0$/m,
			/^slipway_cache_records [1-9]\d*$/m,
		]) {
			assert.ok(line.test(metrics), String(line));
		}
		assert.match(await get("/debug/requests"), /Control\/Solve {2}unknown: .*not found/);
		assert.match(await get("/debug/vars"), /"cmdline"/);
	});

	test("the history has the trace of a build", async () => {
		await using channel = await bench.channel();
		const records: BuildHistoryRecord[] = [];
		const list = async (): Promise<void> => {
			records.length = 0;
			const stream = channel.stream(control.listenBuildHistory, { signal });
			void stream.send({ ...emptyBuildHistoryRequest(), EarlyExit: true });
			stream.closeSend();
			for await (const { record } of stream) {
				records.push(...(record === undefined ? [] : [record]));
			}
		};
		await list();
		assert.equal(records.length, 2);
		for (const { Ref } of [...records]) {
			await channel.unary(
				control.updateBuildHistory,
				{ Ref, Pinned: false, Delete: false, Finalize: true },
				{ signal },
			);
		}
		await list();
		for (const { trace, error } of records) {
			assert.equal(trace?.mediaType, "application/vnd.buildkit.otlp.json.v0");
			const stream = channel.stream(content.read, {
				signal,
				metadata: { "containerd-namespace": ["buildkit_history"] },
			});
			void stream.send({ digest: trace.digest, offset: 0, size: 0 });
			stream.closeSend();
			const parts: Uint8Array[] = [];
			for await (const { data } of stream) {
				parts.push(data);
			}
			const spans = Buffer.concat(parts)
				.toString()
				.trim()
				.split("\n")
				.map(
					(text) =>
						JSON.parse(text) as {
							readonly Name: string;
							readonly SpanContext: { readonly TraceID: string };
							readonly Status: { readonly Description: string };
						},
				);
			const names = spans.map(({ Name }) => Name);
			assert.ok(names.includes("moby.buildkit.v1.Control/Solve"), names.join());
			assert.ok(
				names.some((name) => name.startsWith("[1/1] COPY ")),
				names.join(),
			);
			assert.equal(new Set(spans.map(({ SpanContext }) => SpanContext.TraceID)).size, 1);
			assert.equal(
				spans.some(({ Status }) => /not found/.test(Status.Description)),
				error !== undefined,
			);
		}
	});

	test("programs of a step add to the trace of their build", async () => {
		const spanId = Buffer.from("0102030405060708", "hex");
		// Asked by the step, which goes on when its span has been taken.
		let asked = "";
		const server = createServer(async (request, response) => {
			asked = (request.url ?? "").slice(1);
			const socket = connect(join(bench.root, "otel-grpc.sock"));
			await using channel = openChannel(socket);
			const [, traceId = "", parent = ""] = asked.split("-");
			const span = {
				...emptySpan(),
				traceId: Buffer.from(traceId, "hex"),
				spanId,
				parentSpanId: Buffer.from(parent, "hex"),
				name: "compile",
			};
			const scopeSpans = [{ scope: undefined, spans: [span], schemaUrl: "" }];
			const spans = { resource: undefined, scopeSpans, schemaUrl: "" };
			await channel.unary(trace.export, { resourceSpans: [spans] }, { signal });
			response.end();
		}).listen(0, "127.0.0.1");
		await once(server, "listening");
		const { port } = server.address() as AddressInfo;
		const run = `test -S /dev/otel-grpc.sock && test $OTEL_TRACES_EXPORTER = otlp && wget -q -O- http://127.0.0.1:${port}/$TRACEPARENT`;
		try {
			await bench.client([
				"docker-buildx",
				"--builder",
				"slip",
				"build",
				...busyboxBase,
				"--allow",
				"network.host",
				"-o",
				"type=cacheonly",
				bench.context({ Dockerfile: `FROM base\nUSER 1000\nRUN --network=host ${run}\n` }),
			]);
		} finally {
			server.close();
		}
		const [, traceId = "", parent = ""] = asked.split("-");
		const collected = (): boolean =>
			collector.spans.some((span) => span.traceId === traceId && span.spanId === parent);
		for (const end = performance.now() + 30_000; !collected() && performance.now() < end; ) {
			await new Promise((wake) => setTimeout(wake, 50));
		}
		const step = collector.spans.find((span) => span.spanId === parent);
		assert.match(step?.name ?? "", /RUN --network=host/);
		assert.ok(
			collector.spans.some((span) => span.name === "compile" && span.traceId === traceId),
			"the collector has it too",
		);
	});

	test("the collector gets spans of the daemon and of its client, in one trace; the last ones at its end", async () => {
		daemon.child.kill("SIGTERM");
		const { code, stderr } = await daemon.finished;
		assert.equal(code, 0);
		const steps = collector.spans.filter(({ name }) => name === "[1/1] COPY Dockerfile /a");
		assert.equal(steps.length, 1);
		const inTrace = collector.spans.filter(({ traceId }) => traceId === steps[0]?.traceId);
		assert.ok(inTrace.some(({ name }) => name === "moby.buildkit.v1.Control/Solve"));
		assert.ok(inTrace.every(({ service }) => service !== ""));
		assert.ok(inTrace.some(({ service }) => service === "watched"));
		assert.ok(inTrace.some(({ service }) => service === "buildx"));
		assert.ok(collector.spans.some(({ error }) => /not found/.test(error)));
		assert.ok(collector.metrics.has("buildkit_builds_total"));
		assert.ok(collector.metrics.has("rpc_server_call_duration_seconds"));
		for (const line of stderr.trim().split("\n")) {
			const { level, msg, time } = JSON.parse(line) as Readonly<Record<string, string>>;
			assert.ok(level !== undefined && msg !== undefined && time !== undefined, line);
		}
	});
});

test("slipway build sends its spans to the collector of its own environment, below the span that this names", async () => {
	await using collector = new Collector();
	using bench = new Workbench({ background: true });
	const traceId = "0af7651916cd43dd8448eb211c80319c";
	const env = {
		TRACEPARENT: `00-${traceId}-b7ad6b7169203331-01`,
		OTEL_EXPORTER_OTLP_ENDPOINT: await collector.listen(),
		OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf",
	};
	const context = bench.context({ Dockerfile: "FROM scratch\nCOPY Dockerfile /a\n" });
	for (const where of [[], ["--in-process"]]) {
		bench.stop();
		collector.spans.length = 0;
		await bench.build([...where, "-o", "type=cacheonly", context], { env });
		const named = (name: string): CollectedSpan | undefined =>
			collector.spans.find((span) => span.name === name);
		assert.equal(named("build")?.parentId, "b7ad6b7169203331");
		assert.equal(named("build")?.service, "slipway");
		assert.equal(named("moby.buildkit.v1.Control/Solve")?.parentId, named("build")?.spanId);
		assert.ok(collector.spans.some(({ name }) => name.endsWith("[1/1] COPY Dockerfile /a")));
		assert.ok(collector.spans.every((span) => span.traceId === traceId));
	}
});
