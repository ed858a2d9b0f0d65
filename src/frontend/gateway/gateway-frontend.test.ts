import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { openChannel } from "../../api/grpc-client.ts";
import { llbBridge } from "../../api/services/gateway.ts";
import { SlipwayError } from "../../errors/errors.ts";
import { decodeDefinition } from "../../llb/definition-message.ts";
import type { Definition } from "../../llb/llb.ts";
import { load } from "../../llb/load.ts";
import { sha256 } from "../../oci/digest.ts";
import type { ContainerProcessRequest, FrontendBridge, FrontendResult } from "../frontend.ts";
import { never, oneFile, openWorld, type WorldBridge, type WorldOptions } from "./gateway.fixture.ts";
import { createGatewayFrontend } from "./gateway-frontend.ts";
import { ProcessConnection } from "./process-connection.ts";

interface Asked {
	readonly options?: Readonly<Record<string, string>>;
	readonly inputs?: ReadonlyMap<string, Definition>;
	readonly allowed?: readonly string[];
	/** The config of every image. */
	readonly config?: object;
	/** What the image's program does, on its own side of the connection. */
	readonly program?: (process: ContainerProcessRequest) => Promise<number>;
}

async function solve({
	options = {},
	inputs = new Map(),
	allowed = [],
	config = {},
	program = async () => 0,
}: Asked): Promise<{ readonly result: FrontendResult; readonly bridge: WorldBridge }> {
	const world: WorldOptions = {
		run: program,
		frontend: { ref: undefined, refs: new Map(), metadata: {}, attestations: new Map() },
	};
	await using opened = await openWorld(world);
	const bridge: WorldBridge = {
		...opened.bridge,
		resolveImage: async ({ ref }) => ({
			ref,
			digest: sha256("image"),
			config: Buffer.from(JSON.stringify({ os: "linux", architecture: "amd64", config })),
		}),
	};
	const frontend = createGatewayFrontend({ allowedRepositories: allowed });
	const request = { options, inputs, sessionId: "session1", signal: never };
	return { result: await frontend.solve(request, bridge as FrontendBridge), bridge };
}

async function failure(asked: Asked): Promise<SlipwayError> {
	const error = await solve(asked).then(
		() => undefined,
		(thrown: unknown) => thrown,
	);
	assert.ok(error instanceof SlipwayError, String(error));
	return error;
}

const source = { source: "example.com/frontend:1" };

/** A program that returns the empty result over its standard streams. */
async function wellBehaved({ stdin, onStdout }: ContainerProcessRequest): Promise<number> {
	const connection = new ProcessConnection();
	const pump = (async () => {
		for await (const chunk of stdin ?? []) {
			await connection.onStdout(chunk);
		}
	})();
	const output = (async () => {
		for await (const chunk of connection.stdin) {
			await onStdout?.(chunk);
		}
	})();
	await using channel = openChannel(connection);
	const result = {
		result: undefined,
		metadata: new Map([["said", Buffer.from("so")]]),
		attestations: new Map(),
	};
	await channel.unary(llbBridge.return, { result, error: undefined }, { signal: never });
	connection.destroy();
	await Promise.race([Promise.all([pump, output]), new Promise((resolve) => setImmediate(resolve))]);
	return 0;
}

suite("which image", () => {
	for (const [title, asked, message] of [
		["none", {}, "no source specified for gateway"],
		["the old way", { options: { "gateway-devel": "" } }, "development gateway is no longer supported"],
		[
			"one that is not allowed",
			{ options: source, allowed: ["example.com/other"] },
			"'example.com/frontend:1' is not an allowed gateway source",
		],
	] as const satisfies readonly (readonly [string, Asked, string])[]) {
		test(`${title} is an error`, async () => {
			assert.equal((await failure(asked)).message, message);
		});
	}

	test("docker's own is the built-in frontend, told that it was looked for", async () => {
		const { bridge } = await solve({ options: { source: "docker/dockerfile:1.9", target: "x" } });
		assert.deepEqual(bridge.asked[0]?.options, {
			cmdline: "docker/dockerfile:1.9",
			source: "docker/dockerfile:1.9",
			target: "x",
		});
	});
});

suite("what the image must have", () => {
	test("the abilities that the client needs", async () => {
		const options = { ...source, "frontend.caps": "a.b+forward,c.d" };
		const error = await failure({ options, config: { Labels: { "moby.buildkit.frontend.caps": "a.b" } } });
		assert.deepEqual([error.code, error.message], ["unimplemented", "unsupported frontend capability c.d"]);
		assert.ok(
			error.details.some((each) => each.kind === "foreign" && each.typeUrl.endsWith("FrontendCap+json")),
		);
	});

	test("inputs, if there are any", async () => {
		const error = await failure({ options: source, inputs: new Map([["a", oneFile()]]) });
		assert.equal(error.message, "unsupported frontend capability moby.buildkit.frontend.inputs");
	});
});

suite("the program", () => {
	test("speaks the gateway over its streams, and gets all that it needs to know", async () => {
		let process: ContainerProcessRequest | undefined;
		const { result, bridge } = await solve({
			options: { ...source, target: "x" },
			config: {
				Entrypoint: ["/bin/frontend"],
				WorkingDir: "/w",
				Env: ["A=b"],
				Labels: { "moby.buildkit.frontend.network.none": "true" },
			},
			program: async (started) => {
				process = started;
				return await wellBehaved(started);
			},
		});
		assert.equal(String(result.metadata["said"]), "so");
		assert.deepEqual([process?.args, process?.cwd], [["/bin/frontend"], "/w"]);
		const env = process?.env ?? [];
		assert.ok(env.includes("A=b") && env.includes("BUILDKIT_SESSION_ID=session1"));
		assert.ok(env.some((each) => /^BUILDKIT_FRONTEND_OPT_\d+=target=x$/.test(each)));
		const [container] = bridge.containers;
		assert.equal(container?.request.network, "none");
		assert.equal(container?.disposed, true);
		const [directory] = container?.request.directories ?? [];
		assert.equal(directory?.dest, "/run/config/buildkit/metadata");
		const definition = decodeDefinition(directory?.files.get("frontend.bin") ?? new Uint8Array());
		const [op] = [...load(definition).ops.values()];
		assert.ok(op?.op.kind === "source");
		assert.equal(op.op.identifier, `docker-image://example.com/frontend:1@${sha256("image")}`);
		assert.equal(op.op.attrs.get("image.recordtype"), "frontend");
	});

	test("without an entrypoint is /run", async () => {
		let args: readonly string[] = [];
		await solve({
			options: source,
			program: async (process) => {
				args = process.args;
				return await wellBehaved(process);
			},
		});
		assert.deepEqual(args, ["/run"]);
	});

	test("that ends badly is an error, whatever it has returned", async () => {
		const error = await failure({
			options: source,
			program: async (process) => {
				await wellBehaved(process);
				await process.onStderr?.(Buffer.from("last words\n"));
				return 3;
			},
		});
		assert.equal(error.message, "exit code: 3: last words");
	});

	test("that says nothing is an error", async () => {
		const error = await failure({ options: source });
		assert.equal(error.message, "no result for incomplete build");
	});
});
