import assert from "node:assert/strict";
import { suite, test } from "node:test";
import type { ResolveSourceRequest, SourceIdentity } from "../frontend/frontend.ts";
import type { SourceCheck, SourceVerdict } from "./control.ts";
import { judgeSource } from "./judge-source.ts";

const signal = new AbortController().signal;
const http = (identifier: string, attrs: Readonly<Record<string, string>> = {}): SourceIdentity => ({
	identifier,
	attrs: new Map(Object.entries(attrs)),
});

/** Judges with a client that gives these verdicts, one after the other. */
async function judge(
	verdicts: readonly SourceVerdict[],
	source: SourceIdentity = http("https://example.com/a"),
): Promise<{
	readonly judged: SourceIdentity;
	readonly asked: readonly SourceCheck[];
	readonly resolved: number;
}> {
	const asked: SourceCheck[] = [];
	let resolved = 0;
	const judged = await judgeSource(
		source,
		{ os: "linux", architecture: "amd64" },
		{
			policies: [],
			verifier: {
				async check(request) {
					asked.push(request);
					return verdicts[Math.min(asked.length, verdicts.length) - 1] ?? { kind: "allow" };
				},
			},
			async resolve(request) {
				resolved++;
				return { source: request.source, git: { checksum: "1", ref: "main", commitChecksum: "" } };
			},
			signal,
		},
	);
	return { judged, asked, resolved };
}

const resolve = (source: SourceIdentity): SourceVerdict => ({
	kind: "resolve",
	request: { source, platform: undefined, mode: "default" } satisfies ResolveSourceRequest,
});

suite("a client that verifies sources", () => {
	test("allows one as it is", async () => {
		const { judged, asked } = await judge([{ kind: "allow" }]);
		assert.equal(judged.identifier, "https://example.com/a");
		assert.deepEqual(asked[0]?.platform, { os: "linux", architecture: "amd64" });
	});

	test("denies one, with its reasons for whoever knows them", async () => {
		await assert.rejects(
			judge([{ kind: "deny", action: "DENY", messages: ["too old"] }]),
			(error: unknown) => {
				const { message, details } = error as {
					message: string;
					details: readonly { typeUrl: string; value: Uint8Array }[];
				};
				assert.equal(message, 'source "https://example.com/a" not allowed by policy: action DENY');
				assert.match(details[0]?.typeUrl ?? "", /policysession.DecisionResponse\+json$/);
				assert.match(Buffer.from(details[0]?.value ?? []).toString(), /too old/);
				return true;
			},
		);
	});

	test("asks for more first, and gets what is known", async () => {
		const { asked, resolved } = await judge([resolve(http("https://example.com/a")), { kind: "allow" }]);
		assert.equal(resolved, 1);
		assert.equal(asked[1]?.source.git?.checksum, "1");
	});

	test("changes one, and is asked about what it made", async () => {
		const { judged, asked } = await judge([
			{ kind: "convert", update: http("https://example.com/b", { "http.checksum": "x" }) },
			{ kind: "allow" },
		]);
		assert.equal(judged.attrs.get("http.checksum"), "x");
		assert.equal(asked[1]?.source.source.identifier, "https://example.com/b");
	});

	for (const [title, verdict, message] of [
		["goes on for ever", resolve(http("https://example.com/a")), "too many policy requests"],
		[
			"changes without saying what",
			{ kind: "convert", update: undefined },
			"convert action requires updated source",
		],
		[
			"asks about another source",
			resolve(http("https://example.com/z")),
			'policy requested different source identifier: "https://example.com/z" != "https://example.com/a"',
		],
		[
			"asks with other attributes",
			resolve(http("https://example.com/a", { x: "y" })),
			"policy requested different source attrs: map length mismatch: 0 != 1",
		],
	] as const satisfies readonly (readonly [string, SourceVerdict, string])[]) {
		test(`${title}: an error`, async () => {
			await assert.rejects(judge([verdict]), { message });
		});
	}
});
