import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { gzipSync } from "node:zlib";
import { SlipwayError } from "../../errors/errors.ts";
import type { Definition } from "../../llb/llb.ts";
import { load } from "../../llb/load.ts";
import { image } from "../../llb/sources.ts";
import type { FrontendBridge, FrontendResult } from "../frontend.ts";
import { createFakeBridge, type FakeBridge, type FakeBridgeOptions, platformsOf } from "./fake-bridge.ts";
import { createDockerfileFrontend } from "./frontend.ts";

interface SolveOptions extends Partial<FakeBridgeOptions> {
	readonly options?: Readonly<Record<string, string>>;
	readonly inputs?: ReadonlyMap<string, Definition>;
	readonly signal?: AbortSignal;
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (data: Uint8Array | undefined): string => new TextDecoder().decode(data);

async function solve(
	dockerfile: string,
	{ options = {}, inputs = new Map(), signal = new AbortController().signal, ...fake }: SolveOptions = {},
): Promise<FrontendResult & { readonly bridge: FakeBridge }> {
	const files = { Dockerfile: bytes(dockerfile) };
	const bridge = createFakeBridge({ files: { dockerfile: files, context: files }, ...fake });
	const result = await createDockerfileFrontend().solve({ options, inputs, sessionId: "s", signal }, bridge);
	return { ...result, bridge };
}

async function failure(work: Promise<unknown>): Promise<SlipwayError> {
	const error = await work.then(
		() => undefined,
		(thrown: unknown) => thrown,
	);
	assert.ok(error instanceof SlipwayError, String(error));
	return error;
}

/** Names or identifiers of all ops but the terminal one. */
function names(result: FrontendResult): readonly string[] {
	const [first] = platformsOf(result);
	assert.ok(first?.definition);
	return [...load(first.definition).ops.values()].map((op) => op.name);
}

suite("where the Dockerfile comes from", () => {
	test("a lower-case file counts where the name is the default one", async () => {
		const files = { dockerfile: bytes("FROM scratch\nCOPY a /\n") };
		const result = await solve("", { files: { dockerfile: files, context: {} } });
		assert.equal(platformsOf(result).length, 1);
		const error = await failure(
			solve("", { files: { dockerfile: files, context: {} }, options: { filename: "Other" } }),
		);
		assert.equal(error.message, "failed to read dockerfile: open Other: no such file or directory");
		assert.equal(error.code, "not-found");
	});

	test("a downloaded file is the Dockerfile, and the context holds it", async () => {
		const result = await solve("", {
			options: { context: "https://example.com/df" },
			download: bytes("FROM scratch\nCOPY context /\n"),
		});
		assert.deepEqual(names(result), ["[internal] load remote build context", "[1/1] COPY context /"]);
	});

	test("a downloaded archive is unpacked, the Dockerfile comes out of it", async () => {
		const files = { dockerfile: {}, context: {} };
		const options = { context: "https://example.com/ctx.tgz" };
		const fake = createFakeBridge({ files });
		const solved: Definition[] = [];
		const bridge: FrontendBridge = {
			...fake,
			async solve(definition) {
				solved.push(definition);
				const ref = await fake.solve(definition, { evaluate: false, signal: new AbortController().signal });
				const file = solved.length === 1 ? gzipSync(bytes("tar")) : bytes("FROM scratch\nCOPY a /\n");
				return { ...ref, readFile: async () => file };
			},
		};
		const request = { options, inputs: new Map(), sessionId: "s", signal: new AbortController().signal };
		const result = await createDockerfileFrontend().solve(request, bridge);
		assert.deepEqual(names(result), [
			"[internal] load remote build context",
			"copy /context /",
			"[1/1] COPY a /",
		]);
	});

	test("a graph of the client is context and Dockerfile", async () => {
		const input = image("example.com/ctx:1").marshal();
		const result = await solve("", {
			inputs: new Map([
				["context", input],
				["dockerfile", input],
			]),
			otherFiles: { Dockerfile: bytes("FROM scratch\nCOPY a /\n") },
		});
		assert.deepEqual(names(result), ["docker-image://example.com/ctx:1", "[1/1] COPY a /"]);
	});

	test("an input with an image config is a base image", async () => {
		const config = {
			architecture: "amd64",
			os: "linux",
			config: { Env: ["A=b"], Labels: { x: "y" } },
			rootfs: { type: "layers", diff_ids: [] },
		};
		const encoded = Buffer.from(JSON.stringify(config)).toString("base64");
		const result = await solve("FROM base\nRUN x\n", {
			inputs: new Map([["other", image("example.com/built:1").marshal()]]),
			options: {
				"context:base": "input:other",
				"input-metadata:other": JSON.stringify({ "containerimage.config": encoded }),
			},
		});
		assert.deepEqual(names(result), ["docker-image://example.com/built:1", "[1/2] RUN x"]);
		const own = JSON.parse(text(platformsOf(result)[0]?.imageConfig)) as { config: { Labels: object } };
		assert.deepEqual(own.config.Labels, { x: "y" });
	});
});

suite("syntax", () => {
	for (const ref of [
		"docker/dockerfile",
		"docker/dockerfile:1",
		"docker.io/docker/dockerfile:1.3-labs",
		"docker/dockerfile:experimental",
		"docker/dockerfile-upstream:master",
		`docker/dockerfile:1@sha256:${"a".repeat(64)}`,
		"docker/dockerfile:1 --some flag",
	]) {
		test(`${ref} is built in`, async () => {
			const { bridge } = await solve(`# syntax=${ref}\nFROM alpine\n`);
			assert.deepEqual(
				bridge.resolved.map((request) => request.ref),
				["docker.io/library/alpine:latest"],
			);
		});
	}

	test("another image is asked in its place, with what it was given", async () => {
		const { bridge } = await solve("# escape=`\n# syntax=example.com/df:1 x=y\nFROM alpine\n", {
			options: { target: "t" },
		});
		const [request] = bridge.asked;
		assert.equal(request?.frontend, "gateway.v0");
		assert.deepEqual(request?.options, {
			target: "t",
			source: "example.com/df:1",
			cmdline: "example.com/df:1 x=y",
		});
		assert.deepEqual(bridge.resolved, []);
	});

	test("the built-in one gives way to an image that the client puts in its place", async () => {
		for (const key of ["context:docker/dockerfile:1", "context:docker/dockerfile:1::linux/amd64"]) {
			const options = { [key]: "docker-image://example.com/own" };
			const { bridge } = await solve("# syntax=docker/dockerfile:1\nFROM alpine\n", { options });
			assert.equal(bridge.asked[0]?.options["source"], "docker/dockerfile:1");
		}
	});

	test("an error of another image has the place that names it, unless it has one of its own", async () => {
		const frontendError = new SlipwayError("not-found", "no such image");
		const error = await failure(
			solve("# escape=`\n# syntax=example.com/df:1\nFROM alpine\n", { frontendError }),
		);
		assert.equal(error.message, "no such image");
		const [detail] = error.details;
		assert.ok(detail?.kind === "source");
		assert.equal(detail.ranges[0]?.start.line, 2);
		const again = await failure(solve("# syntax=example.com/df:1\nFROM alpine\n", { frontendError: error }));
		assert.equal(again.details.length, 1);
	});

	test("the build argument counts more than the directive", async () => {
		const options = { "build-arg:BUILDKIT_SYNTAX": "docker/dockerfile:1" };
		const { bridge } = await solve("# syntax=example.com/df:1\nFROM alpine\n", { options });
		assert.deepEqual(bridge.asked, []);
		const error = await failure(
			solve("FROM alpine\n", {
				options: { "build-arg:BUILDKIT_SYNTAX": "example.com/df:1 x" },
				frontendError: new SlipwayError("not-found", "no such image"),
			}),
		);
		assert.equal(error.message, "failed with build-arg:BUILDKIT_SYNTAX = example.com/df:1 x: no such image");
	});

	test("who has already looked is not asked again", async () => {
		await solve("# syntax=example.com/df:1\nFROM alpine\n", { options: { cmdline: "x" } });
	});
});

suite("capabilities of the frontend", () => {
	test("an unknown one is refused, also if it may be forwarded", async () => {
		for (const wanted of ["moby.buildkit.frontend.inputs,x.y", "x.y+forward"]) {
			const error = await failure(solve("FROM alpine\n", { options: { "frontend.caps": wanted } }));
			assert.equal(error.code, "unimplemented");
			assert.equal(error.message, "unsupported frontend capability x.y");
		}
	});

	test("the known ones are accepted", async () => {
		const wanted = "moby.buildkit.frontend.inputs,moby.buildkit.frontend.contexts+forward";
		await solve("FROM alpine\n", { options: { "frontend.caps": wanted } });
	});
});

suite("questions", () => {
	test("describe lists what BuildKit lists", async () => {
		const { metadata } = await solve("FROM alpine\n", {
			options: { requestid: "frontend.subrequests.describe" },
		});
		assert.equal(
			text(metadata["result.txt"]),
			"NAME                 VERSION DESCRIPTION\n" +
				"outline              1.0.0   List all parameters current build target supports\n" +
				"targets              1.0.0   List all targets current build supports\n" +
				"subrequests.describe 1.0.0   List available subrequest types\n",
		);
		const [first] = JSON.parse(text(metadata["result.json"])) as readonly object[];
		assert.deepEqual(first, {
			name: "frontend.outline",
			version: "1.0.0",
			type: "rpc",
			description: "List all parameters current build target supports",
			opts: [{ name: "target", description: "Target build stage" }],
			inputs: null,
			metadata: [
				{ name: "result.json", description: "" },
				{ name: "result.txt", description: "" },
			],
			refs: null,
		});
	});

	test("convertllb gives each op under its digest", async () => {
		const dockerfile = "FROM alpine\nRUN --network=host --mount=type=cache,target=/c x\n";
		const { metadata } = await solve(dockerfile, { options: { requestid: "frontend.convertllb" } });
		const platforms = platformsOf(await solve(dockerfile));
		const answer = JSON.parse(text(metadata["result.json"])) as {
			readonly def: Readonly<Record<string, { readonly exec?: object }>>;
			readonly metadata: object;
			readonly source: { readonly infos: readonly { readonly filename: string }[] };
		};
		const digests = platforms[0]?.definition?.ops.map((op) => op.digest as string) ?? [];
		assert.deepEqual(Object.keys(answer.def), digests.toSorted());
		assert.deepEqual(answer.def[digests[1] ?? ""]?.exec, {
			meta: {
				args: ["/bin/sh", "-c", "x"],
				env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
				cwd: "/",
				removeMountStubsRecursive: true,
			},
			mounts: [
				{ dest: "/" },
				{ input: "-1", dest: "/c", output: "-1", mountType: "CACHE", cacheOpt: { ID: "//c" } },
			],
			network: "HOST",
		});
		assert.equal(answer.source.infos[0]?.filename, "Dockerfile");
	});

	test("an unknown one is refused", async () => {
		const error = await failure(solve("FROM alpine\n", { options: { requestid: "frontend.nope" } }));
		assert.equal(error.message, "unsupported request frontend.nope");
		assert.equal(error.code, "unimplemented");
	});
});

suite("platforms", () => {
	test("several have one result each, and only the first one warns", async () => {
		const result = await solve("FROM alpine\nCMD x\n", { options: { platform: "linux/arm64,linux/amd64" } });
		assert.equal(result.refs.size, 2);
		assert.deepEqual(
			platformsOf(result).map(({ id }) => id),
			["linux/arm64", "linux/amd64"],
		);
		assert.deepEqual(
			result.bridge.warnings.map(({ short }) => short.split(":", 1)[0]),
			["InvalidBaseImagePlatform", "JSONArgsRecommended"],
		);
	});

	test("an image that several stages need is asked for once", async () => {
		const { bridge } = await solve("FROM alpine AS a\nRUN a\nFROM alpine\nCOPY --from=a / /\n");
		assert.equal(bridge.resolved.length, 1);
	});

	test("caches to be looked into are handed on", async () => {
		const options = {
			"cache-imports": '[{"Type":"local","Attrs":{"src":"x"}}]',
			"cache-from": "example.com/a,example.com/b",
		};
		const { bridge } = await solve("FROM alpine\nRUN x\n", { options });
		assert.deepEqual(bridge.cacheImports, [
			{ type: "local", attrs: { src: "x" } },
			{ type: "registry", attrs: { ref: "example.com/a" } },
			{ type: "registry", attrs: { ref: "example.com/b" } },
		]);
	});
});

suite("SOURCE_DATE_EPOCH", () => {
	const stage = "FROM scratch AS src\nADD https://example.com/x.tar /\nFROM scratch\nWORKDIR /w\n";
	const options = { "build-arg:SOURCE_DATE_EPOCH": "src" };

	test("is when a source says that it was changed", async () => {
		const { metadata } = await solve(stage, { options, times: { "https://example.com/x.tar": 77 } });
		assert.equal(text(metadata["source.date.epoch"]), "77");
	});

	test("is the latest file in an archive whose server does not say", async () => {
		const header = Buffer.alloc(512);
		header.write("a.txt", 0);
		header.write("00000000000\0", 124);
		header.write(`${(1234).toString(8).padStart(11, "0")}\0`, 136);
		header.write("        0", 148);
		const sum = header.reduce((total, byte) => total + byte, 0);
		header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
		const archive = Buffer.concat([header, Buffer.alloc(1024)]);
		for (const download of [archive, gzipSync(archive)]) {
			const { metadata } = await solve(stage, { options, download });
			assert.equal(text(metadata["source.date.epoch"]), "1234");
		}
	});

	test("is none for a file that is no archive", async () => {
		const { metadata } = await solve(stage, { options, download: bytes("text") });
		assert.equal(metadata["source.date.epoch"], undefined);
	});

	test("stands under each platform of several", async () => {
		const { metadata } = await solve("FROM alpine\n", {
			options: { platform: "linux/amd64,linux/arm64", "build-arg:SOURCE_DATE_EPOCH": "5" },
		});
		const keys = Object.keys(metadata).filter((key) => key.startsWith("source.date.epoch"));
		assert.deepEqual(keys, ["source.date.epoch/linux/amd64", "source.date.epoch/linux/arm64"]);
	});
});

suite("hostile input", () => {
	test("5,000 stages in a chain need no call stack", async () => {
		const stages = Array.from({ length: 5000 }, (_, index) => `FROM s${index} AS s${index + 1}\n`);
		const result = await solve(`FROM alpine AS s0\n${stages.join("")}`);
		assert.equal(names(result).length, 1);
	});

	test("a cancelled solve ends with the cancel", async () => {
		const controller = new AbortController();
		controller.abort(new SlipwayError("canceled", "context canceled"));
		const files = { Dockerfile: bytes("FROM alpine\n") };
		const fake = createFakeBridge({ files: { dockerfile: files, context: files } });
		const bridge = {
			...fake,
			resolveImage: (_: unknown, { signal }: { readonly signal: AbortSignal }): Promise<never> => {
				signal.throwIfAborted();
				throw new Error("not aborted");
			},
		};
		const request = { options: {}, inputs: new Map(), sessionId: "s", signal: controller.signal };
		const error = await failure(createDockerfileFrontend().solve(request, bridge));
		assert.equal(error.code, "canceled");
	});

	test("a failing base image ends the others' waiting", async () => {
		const files = { Dockerfile: bytes("FROM slow AS a\nFROM broken AS b\nCOPY --from=a / /\n") };
		const fake = createFakeBridge({
			files: { dockerfile: files, context: files },
			images: { "broken:latest": { error: "no such image" } },
		});
		const bridge = {
			...fake,
			resolveImage: (...[request, options]: Parameters<typeof fake.resolveImage>) =>
				request.ref.includes("slow")
					? new Promise<never>((_, reject) => {
							options.signal.addEventListener("abort", () => reject(options.signal.reason));
						})
					: fake.resolveImage(request, options),
		};
		const request = { options: {}, inputs: new Map(), sessionId: "s", signal: new AbortController().signal };
		const error = await failure(createDockerfileFrontend().solve(request, bridge));
		assert.equal(
			error.message,
			"broken: failed to resolve source metadata for docker.io/library/broken:latest: no such image",
		);
	});
});
