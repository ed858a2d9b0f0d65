/**
 * A frontend of its own: what `external-frontend.test.ts` packs into an image. It speaks the gateway protocol over its standard
 * streams; the option `mode` says what it does.
 */
import { readdirSync } from "node:fs";
import { Duplex } from "node:stream";
import type { SolveRequest } from "../../src/api/generated/gateway.ts";
import { openChannel } from "../../src/api/grpc-client.ts";
import { llbBridge } from "../../src/api/services/gateway.ts";
import { toError } from "../../src/errors/errors.ts";
import { toDefinitionMessage } from "../../src/llb/definition-message.ts";
import { mkfile } from "../../src/llb/file-steps.ts";
import { local } from "../../src/llb/sources.ts";
import { type State, scratch } from "../../src/llb/state.ts";

const env = process.env;
const options = new Map(
	Object.entries(env).flatMap(([name, value = ""]) => {
		const at = value.indexOf("=");
		return name.startsWith("BUILDKIT_FRONTEND_OPT_") ? [[value.slice(0, at), value.slice(at + 1)]] : [];
	}),
);
const signal = new AbortController().signal;
const channel = openChannel(Duplex.from({ readable: process.stdin, writable: process.stdout }));

function request(more: Partial<SolveRequest>): SolveRequest {
	return {
		Definition: undefined,
		Frontend: "",
		FrontendOpt: new Map(),
		allowResultReturn: true,
		allowResultArrayRef: true,
		Final: false,
		ExporterAttr: new Uint8Array(),
		CacheImports: [],
		FrontendInputs: new Map(),
		Evaluate: false,
		SourcePolicies: [],
		...more,
	};
}

async function solve(state: State): Promise<string> {
	const Definition = toDefinitionMessage(state.marshal());
	const { result } = await channel.unary(llbBridge.solve, request({ Definition }), { signal });
	return result?.result?.$case === "ref" ? result.result.value.id : "";
}

async function readDockerfile(): Promise<string> {
	const ref = await solve(local("dockerfile", { sessionId: env["BUILDKIT_SESSION_ID"] ?? "" }));
	const FilePath = options.get("filename") ?? "Dockerfile";
	const file = { Ref: ref, FilePath, Range: undefined, MountIndex: 0 };
	return Buffer.from((await channel.unary(llbBridge.readFile, file, { signal })).Data).toString();
}

/** A file that says what the frontend saw. */
async function report(): Promise<void> {
	const { Workers, FrontendAPICaps } = await channel.unary(llbBridge.ping, {}, { signal });
	const seen = {
		dockerfile: await readDockerfile(),
		options: Object.fromEntries(options),
		product: env["BUILDKIT_EXPORTEDPRODUCT"],
		worker:
			Workers[0]?.ID === (JSON.parse(env["BUILDKIT_WORKERS"] ?? "[]") as { readonly id: string }[])[0]?.id,
		capabilities: FrontendAPICaps.length > 20,
		metadata: readdirSync("/run/config/buildkit/metadata"),
	};
	await giveBack(await solve(scratch().file(mkfile("/seen.json", 0o644, JSON.stringify(seen)))));
}

/** What the built-in frontend makes of another file. */
async function ask(filename: string): Promise<void> {
	const FrontendOpt = new Map([["filename", filename]]);
	const { result } = await channel.unary(
		llbBridge.solve,
		request({ Frontend: "dockerfile.v0", FrontendOpt }),
		{ signal },
	);
	await channel.unary(llbBridge.return, { result, error: undefined }, { signal });
}

async function giveBack(id: string): Promise<void> {
	const result = {
		result: { $case: "ref", value: { id, def: undefined } },
		metadata: new Map(),
		attestations: new Map(),
	} as const;
	await channel.unary(llbBridge.return, { result, error: undefined }, { signal });
}

async function run(): Promise<void> {
	switch (options.get("build-arg:mode")) {
		case "ask":
			return await ask("Other");
		case "refuse": {
			const error = { code: 9, message: "this frontend does not want to", details: [] };
			await channel.unary(llbBridge.return, { result: undefined, error }, { signal });
			return;
		}
		case "die":
			process.stderr.write("last words\n");
			return process.exit(3);
		case "die after":
			await giveBack(await solve(scratch().file(mkfile("/a", 0o644, "a"))));
			return process.exit(4);
		case "say nothing":
			return;
		default:
			return await report();
	}
}

run()
	.then(() => process.exit(0))
	.catch((error: unknown) => {
		process.stderr.write(`${toError(error).message}\n`);
		process.exit(1);
	});
