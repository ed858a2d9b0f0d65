import assert from "node:assert/strict";
import { suite, test } from "node:test";
import type * as pb from "../../api/generated/gateway.ts";
import { emptyMeta, MountType, NetMode } from "../../api/generated/ops.ts";
import { llbBridge } from "../../api/services/gateway.ts";
import { type ErrorDetail, SlipwayError } from "../../errors/errors.ts";
import { toDefinitionMessage } from "../../llb/definition-message.ts";
import { load } from "../../llb/load.ts";
import { encodeOp } from "../../llb/op-message.ts";
import { never, oneFile, openWorld, solveOne, solveRequest, worldRef } from "./gateway.fixture.ts";

async function failure(work: Promise<unknown>): Promise<SlipwayError> {
	const error = await work.then(
		() => undefined,
		(thrown: unknown) => thrown,
	);
	assert.ok(error instanceof SlipwayError, String(error));
	return error;
}

function detailJson(details: readonly ErrorDetail[], name: string): Record<string, unknown> | undefined {
	for (const detail of details) {
		if (detail.kind === "foreign" && detail.typeUrl.endsWith(`/${name}`)) {
			return JSON.parse(Buffer.from(detail.value).toString()) as Record<string, unknown>;
		}
	}
	return undefined;
}

const file = (Ref: string, FilePath: string, Range?: pb.FileRange): pb.ReadFileRequest => ({
	Ref,
	FilePath,
	Range,
	MountIndex: 0,
});

suite("what a client is told about the builder", () => {
	test("capabilities and the worker", async () => {
		await using world = await openWorld();
		const pong = await world.call(llbBridge.ping, {});
		const ids = new Set(pong.FrontendAPICaps.map(({ ID }) => ID));
		assert.ok(["gateway.exec", "source.metaresolver", "proto.refarray"].every((id) => ids.has(id)));
		assert.ok(pong.LLBCaps.some(({ ID, Enabled }) => ID === "file.base" && Enabled));
		assert.equal(pong.Workers[0]?.ID, "worker1");
		assert.deepEqual(
			pong.Workers[0]?.platforms.map(({ Architecture }) => Architecture),
			["amd64"],
		);
	});

	test("inputs are the graphs that it was given", async () => {
		const definition = oneFile();
		await using world = await openWorld({ inputs: new Map([["in", definition]]) });
		const { Definitions } = await world.call(llbBridge.inputs, {});
		assert.deepEqual(Definitions.get("in")?.def.length, definition.ops.length);
	});
});

suite("solve", () => {
	test("a graph is a ref with its definition, whose files can be read", async () => {
		await using world = await openWorld({ files: { "/a.txt": "hello world" } });
		const definition = oneFile();
		const { result } = await world.call(
			llbBridge.solve,
			solveRequest({ Definition: toDefinitionMessage(definition) }),
		);
		assert.ok(result?.result?.$case === "ref");
		const { id, def } = result.result.value;
		assert.match(id, /^[a-z0-9]{25}$/);
		assert.equal(def?.def.length, definition.ops.length);
		assert.equal(String((await world.call(llbBridge.readFile, file(id, "/a.txt"))).Data), "hello world");
		const part = await world.call(llbBridge.readFile, file(id, "/a.txt", { Offset: 6, Length: 3 }));
		assert.equal(String(part.Data), "wor");
		const { stat } = await world.call(llbBridge.statFile, { Ref: id, Path: "/a.txt", MountIndex: 0 });
		// Go's bits: setuid is not where the kernel has it.
		assert.deepEqual([stat?.path, stat?.mode, stat?.modTime], ["a.txt", 0o644 + 2 ** 23, 7n]);
		const { entries } = await world.call(llbBridge.readDir, {
			Ref: id,
			DirPath: "/",
			IncludePattern: "",
			MountIndex: 0,
		});
		assert.deepEqual(
			entries.map(({ path }) => path),
			["a.txt"],
		);
	});

	test("clients from before refs get names", async () => {
		await using world = await openWorld();
		const Definition = toDefinitionMessage(oneFile());
		const old = await world.call(
			llbBridge.solve,
			solveRequest({ Definition, allowResultReturn: false, allowResultArrayRef: false }),
		);
		assert.match(old.ref, /^[a-z0-9]{25}$/);
		assert.deepEqual(old.result?.result, { $case: "refDeprecated", value: old.ref });
	});

	test("policies and caches are handed on", async () => {
		await using world = await openWorld();
		await world.call(
			llbBridge.solve,
			solveRequest({
				Definition: toDefinitionMessage(oneFile()),
				CacheImports: [{ Type: "local", Attrs: new Map([["src", "x"]]) }],
				SourcePolicies: [
					{
						version: 1,
						rules: [
							{
								action: 1,
								selector: { identifier: "https://*", matchType: 0, constraints: [] },
								updates: undefined,
							},
						],
					},
				],
			}),
		);
		const [given] = world.bridge.solved;
		assert.deepEqual(given?.cacheImports, [{ type: "local", attrs: { src: "x" } }]);
		assert.deepEqual(given?.sourcePolicies?.[0]?.rules, [
			{ action: "deny", identifier: "https://*", match: "wildcard", constraints: [] },
		]);
	});

	test("another frontend's result keeps its keys and metadata", async () => {
		const frontend = {
			ref: undefined,
			refs: new Map([
				["linux/amd64", worldRef(oneFile(), {})],
				["linux/arm64", undefined],
			]),
			metadata: { "refs.platforms": Buffer.from("{}") },
			attestations: new Map(),
		};
		await using world = await openWorld({ frontend });
		const FrontendOpt = new Map([["target", "x"]]);
		const request = solveRequest({ Frontend: "dockerfile.v0", FrontendOpt });
		const { result } = await world.call(llbBridge.solve, request);
		assert.ok(result?.result?.$case === "refs");
		assert.deepEqual(
			[...result.result.value.refs].map(([key, { id }]) => [key, id !== ""]),
			[
				["linux/amd64", true],
				["linux/arm64", false],
			],
		);
		assert.equal(String(result.metadata.get("refs.platforms")), "{}");
		assert.deepEqual(world.bridge.asked[0]?.options, { target: "x" });
		const error = await failure(world.call(llbBridge.solve, { ...request, allowResultReturn: false }));
		assert.equal(error.message, "solve did not return default result");
	});

	test("nothing to solve is the empty result; a graph and a frontend are too much", async () => {
		await using world = await openWorld();
		const { result } = await world.call(llbBridge.solve, solveRequest({}));
		assert.deepEqual(result?.result, { $case: "ref", value: { id: "", def: undefined } });
		const Definition = toDefinitionMessage(oneFile());
		const error = await failure(
			world.call(llbBridge.solve, solveRequest({ Definition, Frontend: "dockerfile.v0" })),
		);
		assert.equal(error.message, "cannot solve with both Definition and Frontend specified");
	});
});

suite("errors", () => {
	test("of a builder have BuildKit's code, and one that the client knows keeps its own", async () => {
		await using world = await openWorld({ error: new SlipwayError("not-found", "gone") });
		const id = await solveOne(world, oneFile());
		assert.deepEqual(await codeAndMessage(world.call(llbBridge.evaluate, { Ref: id })), ["unknown", "gone"]);
		await using other = await openWorld({ error: new SlipwayError("unimplemented", "cannot") });
		const ref = await solveOne(other, oneFile());
		assert.deepEqual(await codeAndMessage(other.call(llbBridge.evaluate, { Ref: ref })), [
			"unimplemented",
			"cannot",
		]);
	});

	test("refs that nobody was given", async () => {
		await using world = await openWorld();
		const id = await solveOne(world, oneFile());
		const read = await failure(world.call(llbBridge.readFile, file("x", "/a")));
		assert.equal(read.message, `no such ref: x, all [${id}]`);
		const returned = await failure(
			world.call(llbBridge.return, { result: resultWith("x"), error: undefined }),
		);
		assert.equal(returned.message, "return reference x not found");
		const mounted = await failure(world.call(llbBridge.newContainer, container({ resultID: "x" })));
		assert.equal(mounted.message, 'failed to find ref x for "/" mount: return reference x not found');
	});

	test("name the step, and what it left can be mounted", async () => {
		const definition = oneFile();
		const [digest = ""] = [...load(definition).ops.keys()];
		const op = load(definition).ops.values().next().value?.op;
		assert.ok(op);
		const left = worldRef(definition, {});
		const world = await openWorld({
			error: new SlipwayError("unknown", "exit code: 1", { details: [{ kind: "vertex", digest }] }),
			failed: {
				op: encodeOp(op),
				description: new Map([["k", "v"]]),
				inputs: [undefined, left],
				mounts: [left, undefined],
			},
		});
		await using _world = world;
		const id = await solveOne(world, definition);
		const error = await failure(world.call(llbBridge.evaluate, { Ref: id }));
		const state = detailJson(error.details, "errdefs.Solve+json") as {
			readonly inputIDs: readonly string[];
			readonly mountIDs: readonly string[];
			readonly op: { readonly file: object };
			readonly description: object;
		};
		assert.deepEqual(
			state.inputIDs.map((each) => each !== ""),
			[false, true],
		);
		assert.equal(state.inputIDs[1], state.mountIDs[0]);
		assert.ok(state.op.file);
		assert.deepEqual(state.description, { k: "v" });
		await world.call(llbBridge.newContainer, container({ resultID: state.mountIDs[0] ?? "" }));
		assert.equal(world.bridge.containers[0]?.request.mounts[0]?.ref, left);
	});
});

suite("return", () => {
	test("a result, once", async () => {
		await using world = await openWorld();
		const id = await solveOne(world, oneFile());
		await world.call(llbBridge.return, { result: resultWith(id), error: undefined });
		const result = await world.service.returned;
		assert.equal(result.ref?.definition.ops.length, oneFile().ops.length);
		assert.equal(String(result.metadata["k"]), "v");
		const again = await failure(world.call(llbBridge.return, { result: resultWith(id), error: undefined }));
		assert.equal(again.message, "gateway result is already set");
	});

	test("an error, with its code and details", async () => {
		await using world = await openWorld();
		await world.call(llbBridge.return, {
			result: undefined,
			error: { code: 6, message: "own", details: [{ typeUrl: "x/y", value: Buffer.from("z") }] },
		});
		const error = await failure(world.service.returned);
		assert.deepEqual([error.code, error.message], ["already-exists", "own"]);
		assert.equal(error.details[0]?.kind, "foreign");
	});

	test("something", async () => {
		await using world = await openWorld();
		const error = await failure(world.call(llbBridge.return, { result: undefined, error: undefined }));
		assert.equal(error.message, "gateway return must be either result or err");
		assert.equal(world.service.isDone, false);
	});
});

suite("sources and warnings", () => {
	test("a source's questions are the bridge's", async () => {
		await using world = await openWorld();
		const request: pb.ResolveSourceMetaRequest = {
			Source: { identifier: "https://example.com/x", attrs: new Map() },
			Platform: undefined,
			LogName: "log",
			ResolveMode: "",
			Git: undefined,
			Image: undefined,
			HTTP: { ChecksumRequest: { Algo: 2, Suffix: Buffer.from("s") } },
			SourcePolicies: [],
		};
		const { Source } = await world.call(llbBridge.resolveSourceMeta, request);
		assert.equal(Source?.identifier, "https://example.com/x");
		assert.equal(world.bridge.resolved[0]?.httpChecksum?.algorithm, "sha512");
		assert.deepEqual(
			await codeAndMessage(world.call(llbBridge.resolveSourceMeta, { ...request, Source: undefined })),
			["invalid-argument", "source is required"],
		);
	});

	test("an image's name is normalised, and its error says which one it was", async () => {
		await using world = await openWorld();
		const error = await failure(
			world.call(llbBridge.resolveImageConfig, {
				Ref: "alpine",
				Platform: undefined,
				ResolveMode: "",
				LogName: "",
				ResolverType: 0,
				SessionID: "",
				StoreID: "",
				SourcePolicies: [],
			}),
		);
		assert.equal(
			error.message,
			"failed to resolve source metadata for docker.io/library/alpine: docker.io/library/alpine: not found",
		);
	});

	test("a warning", async () => {
		await using world = await openWorld();
		await world.call(llbBridge.warn, {
			digest: `sha256:${"0".repeat(64)}`,
			level: 0,
			short: Buffer.from("short"),
			detail: [Buffer.from("a"), Buffer.from("b")],
			url: "",
			info: { filename: "f", data: Buffer.from("x"), definition: undefined, language: "" },
			ranges: [{ start: { line: 1, character: 0 }, end: { line: 1, character: 2 } }],
		});
		const [warning] = world.bridge.warnings;
		assert.deepEqual([warning?.level, warning?.short, warning?.detail], [1, "short", ["a", "b"]]);
		assert.equal(warning?.source?.filename, "f");
	});
});

suite("containers", () => {
	test("a process has its streams, and the messages their order", async () => {
		await using world = await openWorld({
			run: async ({ args, stdin, onStdout, onStderr }) => {
				let text = "";
				for await (const chunk of stdin ?? []) {
					text += Buffer.from(chunk).toString();
				}
				await onStdout?.(Buffer.from(`${args[0]} read ${text}`));
				await onStderr?.(Buffer.from("err"));
				return 3;
			},
		});
		await world.call(llbBridge.newContainer, container({}));
		const stream = world.served.channel.stream(llbBridge.execProcess, { signal: never });
		await stream.send(init("p1", { Fds: [0, 1, 2] }));
		await stream.send({
			ProcessID: "p1",
			Input: { $case: "File", value: { Fd: 0, EOF: false, Data: Buffer.from("in") } },
		});
		await stream.send({
			ProcessID: "p1",
			Input: { $case: "File", value: { Fd: 0, EOF: true, Data: Buffer.alloc(0) } },
		});
		stream.closeSend();
		assert.deepEqual(await received(stream), [
			"p1 Started",
			"p1 1 run read in",
			"p1 2 err",
			"p1 1 EOF",
			"p1 2 EOF",
			"p1 Exit 3 exit code: 3",
			"p1 Done",
		]);
	});

	test("signals and sizes are for the process that they name", async () => {
		const { promise: seen, resolve } = Promise.withResolvers<readonly string[]>();
		await using world = await openWorld({
			run: async (_, control) => {
				while (control.signals.length === 0) {
					await new Promise((next) => setImmediate(next));
				}
				resolve([...control.sizes, ...control.signals]);
				return 0;
			},
		});
		await world.call(llbBridge.newContainer, container({}));
		const stream = world.served.channel.stream(llbBridge.execProcess, { signal: never });
		await stream.send(init("p1", { Tty: true }));
		await stream.send({ ProcessID: "p1", Input: { $case: "Resize", value: { Rows: 3, Cols: 9 } } });
		await stream.send({ ProcessID: "p1", Input: { $case: "Signal", value: { Name: "HUP" } } });
		stream.closeSend();
		assert.deepEqual(await seen, ["3x9", "SIGHUP"]);
		assert.deepEqual(await received(stream), ["p1 Started", "p1 Exit 0 ", "p1 Done"]);
	});

	for (const [title, message, expected] of [
		["no process id", init(""), ["invalid-argument", "ProcessID required"]],
		[
			"a container that is none",
			init("p", { ContainerID: "x" }),
			["not-found", 'container "x" previously released or not created'],
		],
		[
			"input for nobody",
			{ ProcessID: "q", Input: { $case: "File", value: { Fd: 0, EOF: true, Data: Buffer.alloc(0) } } },
			["not-found", 'IO for process "q" not found'],
		],
	] as const satisfies readonly (readonly [string, pb.ExecMessage, readonly [string, string]])[]) {
		test(`${title} ends the call`, async () => {
			await using world = await openWorld();
			await world.call(llbBridge.newContainer, container({}));
			const stream = world.served.channel.stream(llbBridge.execProcess, { signal: never });
			await stream.send(message);
			assert.deepEqual(await codeAndMessage(received(stream)), expected);
		});
	}

	test("an unknown signal, a descriptor that is not open, a second process of the name", async () => {
		for (const [message, expected] of [
			[
				{ ProcessID: "p", Input: { $case: "Signal", value: { Name: "NOPE" } } },
				["invalid-argument", "Unknown signal NOPE"],
			],
			[
				{ ProcessID: "p", Input: { $case: "File", value: { Fd: 5, EOF: false, Data: Buffer.from("x") } } },
				["out-of-range", "fd 5 unavailable to write"],
			],
			[init("p"), ["already-exists", "Process p already exists"]],
		] as const satisfies readonly (readonly [pb.ExecMessage, readonly [string, string]])[]) {
			await using world = await openWorld({ run: () => new Promise(() => {}) });
			await world.call(llbBridge.newContainer, container({}));
			const stream = world.served.channel.stream(llbBridge.execProcess, { signal: never });
			await stream.send(init("p"));
			await stream.send(message);
			assert.deepEqual(await codeAndMessage(received(stream)), expected);
		}
	});

	test("are released by the client, or with it", async () => {
		const world = await openWorld();
		await world.call(llbBridge.newContainer, container({}));
		await world.call(llbBridge.newContainer, container({}, "c2"));
		const twice = await failure(world.call(llbBridge.newContainer, container({}, "c2")));
		assert.deepEqual([twice.code, twice.message], ["already-exists", "Container c2 already exists"]);
		await world.call(llbBridge.releaseContainer, { ContainerID: "c1" });
		assert.equal(world.bridge.containers[0]?.disposed, true);
		const again = await failure(world.call(llbBridge.releaseContainer, { ContainerID: "c1" }));
		assert.equal(again.message, "container details for c1 not found");
		await world[Symbol.asyncDispose]();
		assert.equal(world.bridge.containers[1]?.disposed, true);
	});

	test("files of a mount, by its number", async () => {
		await using world = await openWorld({ files: { "/a": "x" } });
		await world.call(llbBridge.newContainer, container({}));
		assert.equal(String((await world.call(llbBridge.readFileContainer, file("c1", "/a"))).Data), "x");
		const missing = await failure(world.call(llbBridge.readFileContainer, file("none", "/a")));
		assert.equal(missing.message, "container details for none@0 not found");
	});
});

function resultWith(id: string): pb.Result {
	return {
		result: { $case: "ref", value: { id, def: undefined } },
		metadata: new Map([["k", Buffer.from("v")]]),
		attestations: new Map(),
	};
}

function container(
	{ resultID = "" }: { readonly resultID?: string },
	ContainerID = "c1",
): pb.NewContainerRequest {
	return {
		ContainerID,
		Mounts: [
			{
				input: 0,
				selector: "",
				dest: "/",
				output: 0,
				readonly: false,
				mountType: MountType.BIND,
				TmpfsOpt: undefined,
				cacheOpt: undefined,
				secretOpt: undefined,
				SSHOpt: undefined,
				resultID,
				contentCache: 0,
			},
		],
		Network: NetMode.NONE,
		platform: undefined,
		constraints: undefined,
		extraHosts: [],
		hostname: "",
	};
}

function init(ProcessID: string, more: Partial<pb.InitMessage> = {}): pb.ExecMessage {
	return {
		ProcessID,
		Input: {
			$case: "Init",
			value: {
				ContainerID: "c1",
				Meta: { ...emptyMeta(), args: ["run"] },
				Fds: [],
				Tty: false,
				Security: 0,
				secretenv: [],
				...more,
			},
		},
	};
}

/** Each message of a call in one line. */
async function received(stream: AsyncIterable<pb.ExecMessage>): Promise<readonly string[]> {
	const lines: string[] = [];
	for await (const { ProcessID: id, Input: input } of stream) {
		switch (input?.$case) {
			case "File":
				lines.push(`${id} ${input.value.Fd} ${input.value.EOF ? "EOF" : String(input.value.Data)}`);
				break;
			case "Exit":
				lines.push(`${id} Exit ${input.value.Code} ${input.value.Error?.message ?? ""}`);
				break;
			default:
				lines.push(`${id} ${input?.$case}`);
		}
	}
	return lines;
}

async function codeAndMessage(work: Promise<unknown>): Promise<readonly [string, string]> {
	const { code, message } = await failure(work);
	return [code, message];
}
