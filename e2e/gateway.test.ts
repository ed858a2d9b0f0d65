import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, suite, test } from "node:test";
import { emptySolveRequest } from "../src/api/generated/control.ts";
import {
	type ExecMessage,
	emptySolveRequest as emptyGatewaySolve,
	emptyNewContainerRequest,
	type SolveRequest,
	type SolveResponse,
} from "../src/api/generated/gateway.ts";
import { emptyMeta, emptyMount, NetMode } from "../src/api/generated/ops.ts";
import type { Channel, ClientStream, Method } from "../src/api/grpc.ts";
import { control } from "../src/api/services/control.ts";
import { llbBridge } from "../src/api/services/gateway.ts";
import { SlipwayError } from "../src/errors/errors.ts";
import { toDefinitionMessage } from "../src/llb/definition-message.ts";
import { copy, mkdir, mkfile, rm } from "../src/llb/file-steps.ts";
import { image } from "../src/llb/sources.ts";
import { type State, scratch } from "../src/llb/state.ts";
import { type RealRegistry, startRealRegistry } from "../src/registry/real-registry.ts";
import { DaemonBench } from "./support/daemon.ts";
import { busyboxLayout } from "./support/slipway.ts";
import { tool } from "./support/tools.ts";

/** A client that is its own frontend, as programs on BuildKit's Go client are: graphs, files, containers, errors. */

const bench = new DaemonBench();
let registry: RealRegistry;
let channel: Channel;

before(async () => {
	registry = await startRealRegistry();
	const target = `docker://${registry.host}/busybox:1`;
	tool("skopeo", ["copy", "--dest-tls-verify=false", `oci:${busyboxLayout}:latest`, target]);
	await bench.startDaemon();
	channel = await bench.channel();
});

after(async () => {
	await channel?.[Symbol.asyncDispose]();
	await bench[Symbol.asyncDispose]();
	await registry?.[Symbol.asyncDispose]();
});

/** One build of ours: the request that waits for the result, and the gateway beside it. */
interface OwnBuild {
	readonly ended: Promise<unknown>;
	call<Request, Response>(method: Method<"unary", Request, Response>, request: Request): Promise<Response>;
	open(): ClientStream<ExecMessage, ExecMessage>;
	/** Processes to their ends. */
	exec(messages: readonly ExecMessage[]): Promise<readonly string[]>;
	solve(state: State, more?: Partial<SolveRequest>): Promise<string>;
	giveBack(id: string): Promise<void>;
}

async function withBuild(work: (build: OwnBuild) => Promise<void>): Promise<void> {
	const Ref = randomBytes(12).toString("hex");
	const end = new AbortController();
	const metadata = { "buildkit-controlapi-buildid": [Ref] };
	const ended = channel.unary(control.solve, { ...emptySolveRequest(), Ref }, { signal: end.signal });
	ended.catch(() => {});
	const options = { signal: end.signal, metadata };
	const call: OwnBuild["call"] = (method, request) => channel.unary(method, request, options);
	try {
		await work({
			ended,
			call,
			open: () => channel.stream(llbBridge.execProcess, options),
			async exec(messages) {
				const stream = channel.stream(llbBridge.execProcess, options);
				for (const message of messages) {
					await stream.send(message);
				}
				stream.closeSend();
				return await linesOf(stream);
			},
			solve: async (state, more = {}) => refOf(await call(llbBridge.solve, solveRequest(state, more))),
			async giveBack(id) {
				const result = {
					result: { $case: "ref", value: { id, def: undefined } },
					metadata: new Map([["frontend.said", Buffer.from("so")]]),
					attestations: new Map(),
				} as const;
				await call(llbBridge.return, { result, error: undefined });
			},
		});
	} finally {
		end.abort();
		await ended.catch(() => {});
	}
}

function solveRequest(state: State, more: Partial<SolveRequest>): SolveRequest {
	return {
		...emptyGatewaySolve(),
		Definition: toDefinitionMessage(state.marshal()),
		allowResultReturn: true,
		allowResultArrayRef: true,
		...more,
	};
}

function refOf({ result }: SolveResponse): string {
	return result?.result?.$case === "ref" ? result.result.value.id : "";
}

/** BuildKit's `Solve` message. */
interface Failure {
	readonly inputIDs?: readonly string[];
	readonly mountIDs?: readonly string[];
	readonly op?: { readonly exec?: { readonly meta: { readonly args: readonly string[] } } };
	readonly file?: object;
	readonly cache?: object;
}

function solveDetail(error: unknown): Failure {
	assert.ok(error instanceof SlipwayError);
	const detail = error.details.find(
		(each) => each.kind === "foreign" && each.typeUrl.endsWith("errdefs.Solve+json"),
	);
	assert.ok(detail?.kind === "foreign");
	return JSON.parse(Buffer.from(detail.value).toString());
}

/** All output of a process, then its code. */
async function linesOf(stream: AsyncIterable<ExecMessage>): Promise<readonly string[]> {
	const out = new Map<string, string>();
	for await (const { ProcessID: id, Input: input } of stream) {
		if (input?.$case === "File") {
			out.set(id, (out.get(id) ?? "") + Buffer.from(input.value.Data).toString());
		} else if (input?.$case === "Exit") {
			out.set(id, `${out.get(id) ?? ""}[${input.value.Code}]`);
		}
	}
	return [...out].map(([id, text]) => `${id}: ${text}`);
}

function start(ProcessID: string, args: readonly string[], Tty = false): ExecMessage {
	const Meta = { ...emptyMeta(), args, env: ["PS1="] };
	const value = { ContainerID: "c", Meta, Fds: [0, 1, 2], Tty, Security: 0, secretenv: [] } as const;
	return { ProcessID, Input: { $case: "Init", value } };
}

const input = (ProcessID: string, text: string, EOF = true): ExecMessage => ({
	ProcessID,
	Input: { $case: "File", value: { Fd: 0, EOF, Data: Buffer.from(text) } },
});

const busybox = (): State => image(`${registry.host}/busybox:1`);

suite("a client that is the frontend", () => {
	test("solves, reads, and its result is the build's", async () => {
		await withBuild(async (build) => {
			const id = await build.solve(scratch().file(mkfile("/a", 0o644, "hello")));
			const file = { Ref: id, FilePath: "/a", Range: undefined, MountIndex: 0 };
			assert.equal(String((await build.call(llbBridge.readFile, file)).Data), "hello");
			await build.giveBack(id);
			const { ExporterResponse } = (await build.ended) as {
				readonly ExporterResponse: ReadonlyMap<string, string>;
			};
			assert.equal(ExporterResponse.get("frontend.said"), "so");
		});
	});

	test("a build that nobody has begun is an unknown job", async () => {
		const options = {
			signal: AbortSignal.timeout(20_000),
			metadata: { "buildkit-controlapi-buildid": ["nobody"] },
		};
		await assert.rejects(channel.unary(llbBridge.ping, {}, options), (error: unknown) => {
			assert.ok(error instanceof SlipwayError);
			assert.equal(error.message, "forwarding Ping: no such job nobody");
			return true;
		});
	});

	test("runs processes in a container: streams, a terminal, and files", async () => {
		await withBuild(async (build) => {
			const resultID = await build.solve(busybox());
			await build.call(llbBridge.newContainer, {
				...emptyNewContainerRequest(),
				ContainerID: "c",
				Mounts: [
					{ ...emptyMount(), dest: "/", resultID },
					{ ...emptyMount(), dest: "/work" },
				],
				Network: NetMode.NONE,
				hostname: "inside",
			});
			const first = build.open();
			await first.send(start("first", ["sh", "-c", "read x; echo got $x; exit 3"]));
			const lines = await build.exec([
				start("other", ["sh", "-c", "hostname; cat > /work/f; cat /work/f"]),
				input("other", "text\n"),
				start("terminal", ["sh", "-c", "tty; exit 4"], true),
			]);
			assert.deepEqual(lines[0], "other: inside\ntext\n[0]");
			assert.match(lines[1] ?? "", /^terminal: \/dev\/pts\/\d+\r\n\[4\]$/);
			await first.send(input("first", "word\n"));
			first.closeSend();
			assert.deepEqual(await linesOf(first), ["first: got word\n[3]"]);
			const file = { Ref: "c", FilePath: "/f", Range: undefined, MountIndex: 1 };
			assert.equal(String((await build.call(llbBridge.readFileContainer, file)).Data), "text\n");
			await build.call(llbBridge.releaseContainer, { ContainerID: "c" });
			await build.giveBack("");
			await build.ended;
		});
	});

	test("looks into a step that failed, by what its error names", async () => {
		await withBuild(async (build) => {
			const failing = busybox().run({ args: ["sh", "-c", "echo before > /left; exit 4"] }).root;
			const error = await build.solve(failing, { Evaluate: true }).then(
				() => assert.fail("it must fail"),
				(thrown: unknown) => thrown,
			);
			assert.ok(error instanceof SlipwayError);
			assert.match(error.message, /did not complete successfully: exit code: 4$/);
			assert.equal(error.code, "unknown");
			const { mountIDs = [], op, file, cache } = solveDetail(error);
			assert.equal(op?.exec?.meta.args[0], "sh");
			assert.deepEqual([file, cache], [undefined, undefined]);
			await build.call(llbBridge.newContainer, {
				...emptyNewContainerRequest(),
				ContainerID: "c",
				Mounts: [{ ...emptyMount(), dest: "/", resultID: mountIDs[0] ?? "" }],
			});
			assert.deepEqual(await build.exec([start("look", ["cat", "/left"]), input("look", "")]), [
				"look: before\n[0]",
			]);
			await build.call(llbBridge.return, {
				result: undefined,
				error: { code: 6, message: "seen enough", details: [] },
			});
			await assert.rejects(build.ended, { code: "already-exists", message: "seen enough" });
		});
	});

	test("hears which file action or which input's content failed, and gets its trees", async () => {
		await withBuild(async (build) => {
			const failure = async (state: State): Promise<Failure> => {
				const error = await build.solve(state, { Evaluate: true }).then(
					() => assert.fail("it must fail"),
					(thrown: unknown) => thrown,
				);
				return solveDetail(error);
			};
			const second = await failure(scratch().file([mkdir("/first", 0o755), rm("/nope")]));
			assert.deepEqual(second.file, { index: "1" });
			assert.deepEqual(
				second.mountIDs?.map((id) => id !== ""),
				[false, true],
			);
			const from = busybox().run({ args: ["touch", "/mark"] }).root;
			const content = await failure(scratch().file(copy(from, "/nope", "/")));
			assert.deepEqual(content.cache, {});
			const container = {
				...emptyNewContainerRequest(),
				ContainerID: "c",
				Mounts: [
					{ ...emptyMount(), dest: "/", resultID: content.inputIDs?.[0] ?? "" },
					{ ...emptyMount(), dest: "/left", resultID: second.mountIDs?.[1] ?? "" },
				],
			};
			await build.call(llbBridge.newContainer, container);
			const look = [start("look", ["ls", "-d", "/mark", "/left/first"]), input("look", "")];
			assert.deepEqual(await build.exec(look), ["look: /left/first\n/mark\n[0]"]);
			await build.call(llbBridge.releaseContainer, { ContainerID: "c" });

			await build.call(llbBridge.newContainer, container);
			const secretenv = [{ ID: "nobody's", name: "S", optional: false }];
			const [running, refused] = [start("p", ["sleep", "1000"]), start("q", ["true"])];
			assert.ok(refused.Input?.$case === "Init");
			const init = { ...refused.Input, value: { ...refused.Input.value, secretenv } };
			await assert.rejects(build.exec([running, { ...refused, Input: init }]), /no active sessions/);
			// With the call that started it the container has ended.
			await build.call(llbBridge.releaseContainer, { ContainerID: "c" });
		});
	});

	test("that vanishes ends its build, and its containers with it", async () => {
		const own = await bench.channel();
		const Ref = randomBytes(12).toString("hex");
		const signal = new AbortController().signal;
		const metadata = { "buildkit-controlapi-buildid": [Ref] };
		const ended = own.unary(control.solve, { ...emptySolveRequest(), Ref }, { signal });
		ended.catch(() => {});
		const resultID = refOf(
			await own.unary(llbBridge.solve, solveRequest(busybox(), {}), { signal, metadata }),
		);
		const request = {
			...emptyNewContainerRequest(),
			ContainerID: "c",
			Mounts: [{ ...emptyMount(), dest: "/", resultID }],
		};
		await own.unary(llbBridge.newContainer, request, { signal, metadata });
		const stream = own.stream(llbBridge.execProcess, { signal, metadata });
		const marker = `30${Date.now() % 100_000}`;
		await stream.send(start("p", ["sleep", marker]));
		for await (const { Input: message } of stream) {
			if (message?.$case === "Started") {
				break;
			}
		}
		await own[Symbol.asyncDispose]();
		await assert.rejects(ended);
		await eventually(() => !tool("ps", ["-eo", "args"]).includes(`sleep ${marker}`));
		await assert.rejects(channel.unary(llbBridge.ping, {}, { signal, metadata }), /no such job/);
	});
});

async function eventually(isSo: () => boolean): Promise<void> {
	while (!isSo()) {
		await new Promise((resolve) => setTimeout(resolve, 20));
	}
}
