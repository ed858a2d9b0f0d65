import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import { SlipwayError } from "../../errors/errors.ts";
import type { Definition, OpMetadata } from "../../llb/llb.ts";
import { formatPlatformAll } from "../../oci/platform.ts";
import type { FrontendResult } from "../frontend.ts";
import { createFakeBridge, type FakeBridge, type FakeImage, platformsOf, readFiles } from "./fake-bridge.ts";
import { createDockerfileFrontend } from "./frontend.ts";

/**
 * Dockerfiles, one feature each and combinations, with what BuildKit's own frontend makes of them: op digests in the
 * order of the definition, metadata, image configs byte for byte, warnings, errors with their places, and the answers
 * to questions. The facts in expected.json come from the reference; they are never written by this code.
 */
interface Expected {
	readonly platforms?: readonly ExpectedPlatform[];
	readonly warnings: readonly ExpectedWarning[];
	readonly error?: string;
	/** The lines of each place, inner first. */
	readonly places?: readonly (readonly number[])[];
	/** Reference, platform, mode and log name of each image that is asked for. */
	readonly resolved?: readonly (readonly string[])[];
	/** Of a question: JSON without blanks. */
	readonly result?: string;
	readonly text?: string;
	readonly meta?: Readonly<Record<string, string>>;
}

interface ExpectedPlatform {
	readonly platform?: string;
	readonly ops: readonly object[];
	readonly image: string;
	readonly base: string | null;
	readonly epoch?: number;
}

interface ExpectedWarning {
	readonly short: string;
	readonly description: string;
	readonly url: string;
	readonly lines: readonly number[];
}

interface CaseOptions {
	readonly opts?: Readonly<Record<string, string>>;
	readonly images?: Readonly<Record<string, FakeImage>>;
	readonly buildPlatform?: string;
	/** The question that is asked; absent: a build. */
	readonly mode?: "lint" | "outline" | "targets";
}

const root = join(import.meta.dirname, "corpus");
const expected = JSON.parse(readFileSync(join(root, "expected.json"), "utf8")) as Record<string, Expected>;

suite("corpus", () => {
	test("has a fact for each Dockerfile", () => {
		const directories = readdirSync(root, { withFileTypes: true }).filter((entry) => entry.isDirectory());
		assert.deepEqual(directories.map(({ name }) => name).sort(), Object.keys(expected).sort());
	});
	for (const [name, facts] of Object.entries(expected)) {
		test(name, () => check(name, facts));
	}
});

async function check(name: string, facts: Expected): Promise<void> {
	const directory = join(root, name);
	const files = readFiles(directory, ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore", "opts.json"]);
	const given = files["opts.json"];
	const options = given === undefined ? {} : (JSON.parse(new TextDecoder().decode(given)) as CaseOptions);
	const bridge = createFakeBridge({
		files: { dockerfile: files, context: files },
		download: files["Dockerfile"] ?? new Uint8Array(),
		...(options.images === undefined ? {} : { images: options.images }),
		...(options.buildPlatform === undefined ? {} : { buildPlatform: options.buildPlatform }),
		otherFiles: files,
	});
	const request = {
		options: {
			...options.opts,
			...(options.mode === undefined ? {} : { requestid: `frontend.${options.mode}` }),
		},
		inputs: new Map<string, Definition>(),
		sessionId: "dfllb-session",
		signal: AbortSignal.timeout(60_000),
	};
	let result: FrontendResult | undefined;
	let error: unknown;
	try {
		result = await createDockerfileFrontend().solve(request, bridge);
	} catch (thrown) {
		error = thrown;
	}
	compareError(error, facts);
	if (options.mode === undefined) {
		compareWarnings(bridge, facts.warnings);
		compareResolved(bridge, facts.resolved ?? []);
	}
	if (result !== undefined && facts.result !== undefined) {
		compareAnswer(result, facts);
	}
	if (result !== undefined && facts.platforms !== undefined) {
		comparePlatforms(result, facts.platforms);
	}
}

/** Where BuildKit's message is that of Go's JSON decoder, ours says what was wanted. */
const ownWords: ReadonlyMap<string, string> = new Map([
	[
		"failed to parse image config: json: cannot unmarshal array into Go value of type v1.DockerOCIImage",
		"failed to parse image config: image config must be an object but is an array",
	],
]);

function compareError(error: unknown, facts: Expected): void {
	if (error !== undefined && !(error instanceof SlipwayError)) {
		throw error;
	}
	const own = ownWords.get(facts.error ?? "");
	assert.equal(error?.message, own ?? facts.error);
	if (error !== undefined) {
		const places = error.details.flatMap((detail) =>
			detail.kind === "source" ? [detail.ranges.map((range) => range.start.line)] : [],
		);
		// Where BuildKit has no place, ours may have one.
		if (facts.places?.length !== 0) {
			assert.deepEqual(places, facts.places);
		}
	}
}

function compareWarnings({ warnings }: FakeBridge, facts: readonly ExpectedWarning[]): void {
	const own = warnings.map(({ short, detail, url = "", ranges = [] }) => ({
		short,
		description: detail.join("\n"),
		url,
		lines: ranges.map((range) => range.start.line),
	}));
	assert.deepEqual(own, facts);
}

function compareResolved({ resolved }: FakeBridge, facts: readonly (readonly string[])[]): void {
	const own = resolved.map(({ ref, platform, mode, logName, ociLayout }) => [
		`${ociLayout === undefined ? "docker-image" : "oci-layout"}://${ref}`,
		platform === undefined ? "" : formatPlatformAll(platform),
		ociLayout === undefined ? mode : "",
		logName,
	]);
	assert.deepEqual(own.sort(), [...facts].sort());
}

function compareAnswer(result: FrontendResult, facts: Expected): void {
	const texts = new Map(
		Object.entries(result.metadata).map(([key, value]) => [key, new TextDecoder().decode(value)]),
	);
	assert.deepEqual(platformsOf(result), []);
	assert.equal(JSON.stringify(JSON.parse(texts.get("result.json") ?? "null")), facts.result);
	assert.equal(texts.get("result.txt"), facts.text);
	for (const [key, value] of Object.entries(facts.meta ?? {})) {
		assert.equal(texts.get(key), value, key);
	}
}

function comparePlatforms(result: FrontendResult, facts: readonly ExpectedPlatform[]): void {
	const platforms = platformsOf(result);
	assert.equal(platforms.length, facts.length);
	for (const [index, platform] of platforms.entries()) {
		const fact = facts[index];
		assert.ok(fact);
		assert.deepEqual(describePlatform(platform), {
			ops: fact.ops,
			image: fact.image,
			base: fact.base ?? undefined,
		});
		if (fact.platform !== undefined) {
			assert.equal(platform.id, fact.platform);
		}
		const { epoch } = platform;
		assert.equal(epoch === undefined ? undefined : Number(new TextDecoder().decode(epoch)), fact.epoch);
	}
}

function describePlatform({
	definition,
	imageConfig,
	baseImageConfig,
}: ReturnType<typeof platformsOf>[number]): object {
	const text = (bytes: Uint8Array | undefined): string | undefined =>
		bytes === undefined ? undefined : new TextDecoder().decode(bytes);
	return { ops: describeOps(definition), image: text(imageConfig), base: text(baseImageConfig) };
}

/** Ids of progress groups are random; those of the facts are numbered. */
function describeOps(definition: Definition | undefined): readonly object[] {
	const groups = new Map<string, string>();
	return (definition?.ops ?? []).map(({ digest }) => {
		const metadata = definition?.metadata.get(digest);
		const locations = definition?.source?.locations.get(digest);
		return {
			digest,
			...(metadata === undefined ? { caps: "" } : describeMetadata(metadata, groups)),
			...(locations === undefined
				? {}
				: { lines: locations.map(({ ranges }) => ranges.map((range) => range.start.line)) }),
		};
	});
}

function describeMetadata(metadata: OpMetadata, groups: Map<string, string>): object {
	const { description, caps, ignoreCache, progressGroup: group, linuxResources: limits } = metadata;
	const name = description.get("llb.customname");
	const command = description.get("com.docker.dockerfile.v1.command");
	if (group !== undefined && !groups.has(group.id)) {
		groups.set(group.id, `pg${groups.size}`);
	}
	return {
		...(name === undefined ? {} : { name }),
		...(command === undefined ? {} : { command }),
		caps: [...caps].sort().join(" "),
		...(ignoreCache ? { ignoreCache } : {}),
		...(group === undefined
			? {}
			: {
					progressGroup: {
						id: groups.get(group.id),
						name: group.name,
						...(group.weak ? { weak: true } : {}),
					},
				}),
		...(limits === undefined ? {} : { linuxResources: protoJson(limits) }),
	};
}

/** As protobuf's JSON has it: numbers of 64 bits as texts, nothing that is zero. */
function protoJson(message: object): object {
	return Object.fromEntries(
		Object.entries(message)
			.filter(([, value]) => value !== 0 && value !== "")
			.map(([key, value]) => [key, String(value)]),
	);
}
