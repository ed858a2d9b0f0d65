/** `--explain`: which input made a step run. */
import assert from "node:assert/strict";
import { appendFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import type { Explanation, Reason } from "../src/control/explain.ts";
import { busyboxLayout, debianLayout, program, Workbench } from "./support/slipway.ts";
import { tool } from "./support/tools.ts";

const bench = new Workbench();
after(() => bench[Symbol.dispose]());

const dockerfile = `FROM base AS build
ARG WHO=world
RUN echo hello $WHO > /who
COPY src/ /src/
RUN find /src -type f -exec cat {} + > /all
FROM base
WORKDIR /srv
COPY --from=build /all /who ./
COPY other other
RUN --mount=target=/context cat /context/mounted > seen
`;

const context = bench.context({
	Dockerfile: dockerfile,
	"src/one": "1",
	"src/sub/two": "2",
	other: "x",
	mounted: "m",
});
const bases: Readonly<Record<string, readonly string[]>> = {
	busybox: ["--build-context", `base=oci-layout://${busyboxLayout}:latest`],
	debian: ["--build-context", `base=oci-layout://${debianLayout}:bookworm`],
};

async function explain(args: readonly string[] = [], base = "busybox"): Promise<Explanation> {
	const { stdout } = await bench.build([...(bases[base] ?? []), "--explain=json", ...args, context]);
	return JSON.parse(stdout.toString());
}

/** Steps by the line of the Dockerfile. */
const byLine = ({ steps }: Explanation): ReadonlyMap<number, readonly Reason[]> =>
	new Map(steps.map(({ place, reasons }) => [place?.line ?? 0, reasons]));

const edit = (change: (text: string) => string): void => {
	const path = join(context, "Dockerfile");
	writeFileSync(path, change(readFileSync(path, "utf8")));
};

test("the first build, nothing, files, arguments, instructions, a new step, the base, pruning, --no-cache", async () => {
	const first = await explain();
	assert.equal(first.steps.length, 7);
	assert.ok(first.steps.every(({ reasons }) => reasons.length === 1 && reasons[0]?.kind === "first-build"));

	assert.deepEqual(await explain(), { steps: [], cached: 7 });

	writeFileSync(join(context, "src/sub/two"), "two");
	writeFileSync(join(context, "src/new"), "n");
	rmSync(join(context, "src/one"));
	const files = byLine(await explain());
	assert.deepEqual(files.get(4), [
		{
			kind: "files",
			from: "the build context",
			files: [
				{ path: "src/new", change: "added" },
				{ path: "src/one", change: "removed" },
				{ path: "src/sub/two", change: "changed" },
			],
			total: 3,
		},
	]);
	assert.deepEqual(files.get(5), [{ kind: "step", name: "[build 2/4] COPY src/ /src/" }]);
	assert.deepEqual(files.get(8), [
		{ kind: "files", from: "stage build", files: [{ path: "all", change: "changed" }], total: 1 },
	]);
	assert.equal(files.has(3) || files.has(7), false);

	const argument = byLine(await explain(["--build-arg", "WHO=me"]));
	assert.deepEqual(argument.get(3), [{ kind: "argument", name: "WHO", before: "world", after: "me" }]);

	// A build that is wholly cached is one to compare with as well.
	assert.equal((await explain()).steps.length, 0);
	const third = byLine(await explain(["--build-arg", "WHO=you"]));
	assert.deepEqual(third.get(3), [{ kind: "argument", name: "WHO", before: "world", after: "you" }]);
	assert.equal((await explain(["--build-arg", "WHO=me"])).steps.length, 0);

	edit((text) => text.replace("echo hello $WHO", "echo bye $WHO"));
	const edited = byLine(await explain(["--build-arg", "WHO=me"]));
	assert.deepEqual(edited.get(3), [
		{ kind: "instruction", before: "RUN echo hello $WHO > /who", after: "RUN echo bye $WHO > /who" },
	]);

	edit((text) => text.replace("WORKDIR /srv\n", "WORKDIR /srv\nRUN echo inserted\n"));
	const inserted = byLine(await explain(["--build-arg", "WHO=me"]));
	assert.deepEqual([...inserted.keys()], [8, 9, 10, 11]);
	assert.deepEqual(inserted.get(8), [{ kind: "new-step" }]);
	assert.deepEqual(inserted.get(9), [{ kind: "step", name: "[stage-1 2/6] RUN echo inserted" }]);

	writeFileSync(join(context, "mounted"), "other");
	assert.deepEqual(
		[...byLine(await explain(["--build-arg", "WHO=me"]))],
		[
			[
				11,
				[
					{
						kind: "files",
						from: "the build context",
						files: [{ path: "mounted", change: "changed" }],
						total: 1,
					},
				],
			],
		],
	);

	tool(program, ["prune", "--force", "--root", bench.root, "--filter", "description~=inserted"], {
		env: { SLIPWAY_IN_PROCESS: "1" },
	});
	tool(program, ["prune", "--force", "--all", "--root", bench.root], { env: { SLIPWAY_IN_PROCESS: "1" } });
	const pruned = await explain(["--build-arg", "WHO=me"]);
	assert.deepEqual(byLine(pruned).get(3), [{ kind: "gone" }]);

	const other = byLine(await explain(["--build-arg", "WHO=me"], "debian"));
	const [base] = other.get(3) ?? [];
	assert.equal(base?.kind, "base");
	assert.match(
		base.kind === "base" ? `${base.before} ${base.after}` : "",
		/^\S*sha256:[0-9a-f]{64} \S*sha256:[0-9a-f]{64}$/,
	);

	// WORKDIR is not among what the flag is about.
	const forced = await explain(["--no-cache", "--build-arg", "WHO=me"], "debian");
	assert.ok(
		forced.steps.length === 7 && forced.steps.every(({ reasons }) => reasons[0]?.kind === "no-cache"),
	);
});

test("text, a build that fails, wrong values", async () => {
	appendFileSync(join(context, "Dockerfile"), "RUN exit 3\n");
	const failed = await bench.run([...(bases["busybox"] ?? []), "--explain", context]);
	assert.equal(failed.code, 1);
	assert.match(failed.stderr, /\n\[stage-1 6\/7\] RUN exit 3 \(Dockerfile:12\)\n {2}the step is new\n/);
	assert.match(failed.stderr, /steps? ran, \d+ steps? (?:was|were) cached:\n/);
	const wrong = await bench.run(["--explain=xml", context]);
	assert.match(wrong.stderr, /invalid --explain xml: text or json/);
	const elsewhere = await bench.run(["--explain", "--builder", "unix:///nowhere", context]);
	assert.match(elsewhere.stderr, /--explain needs the own builder/);
});

test("through --link and documents, in the background builder, for several platforms", async () => {
	using background = new Workbench({ background: true });
	const linked = background.context({
		Dockerfile: `FROM base AS one
COPY --link src /src
FROM scratch
COPY --link --from=one /src /
COPY <<doc /doc
text
doc
`,
		"src/a": "1",
	});
	const why = async (): Promise<Explanation["steps"]> => {
		const args = [...(bases["busybox"] ?? []), "--platform", "linux/amd64", "--explain=json", linked];
		return JSON.parse((await background.build(args)).stdout.toString()).steps;
	};
	assert.equal((await why()).length, 3);
	assert.deepEqual(await why(), []);
	writeFileSync(join(linked, "src/a"), "2");
	assert.deepEqual(
		(await why()).map(({ reasons }) => reasons),
		[
			[{ kind: "files", from: "the build context", files: [{ path: "src/a", change: "changed" }], total: 1 }],
			[{ kind: "files", from: "stage one", files: [{ path: "src/a", change: "changed" }], total: 1 }],
			[{ kind: "step", name: "[stage-1 1/2] COPY --link --from=one /src /" }],
		],
	);
	writeFileSync(
		join(linked, "Dockerfile"),
		readFileSync(join(linked, "Dockerfile"), "utf8").replace("text", "other"),
	);
	const [changed] = await why();
	assert.deepEqual(changed?.reasons, [
		{
			kind: "files",
			from: "the document in the Dockerfile",
			files: [{ path: "doc", change: "changed" }],
			total: 1,
		},
	]);
});
