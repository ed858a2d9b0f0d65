import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as pb from "../api/generated/ops.ts";
import { findDetail, SlipwayError } from "../errors/errors.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import { decodeDefinition, encodeDefinition } from "./definition-message.ts";
import { definitionOutput } from "./definition-output.ts";
import { copy, mkdir, mkfile, rm, symlink } from "./file-steps.ts";
import type { Definition, LoadedDefinition } from "./llb.ts";
import { type LoadOptions, load } from "./load.ts";
import { image, local } from "./sources.ts";
import { diff, merge, type State, scratch, stateOf } from "./state.ts";

const busybox = image("busybox");
const run = (state: State, ...args: readonly string[]) => state.run({ args }).root;

/** A definition of these messages, in this order. */
function definitionOf(...messages: readonly Partial<pb.Op>[]): Definition {
	return {
		ops: messages.map((message) => {
			const bytes = pb.Op.encode({ ...pb.emptyOp(), ...message }).finish();
			return { digest: sha256(bytes), bytes };
		}),
		metadata: new Map(),
	};
}

function digestOf(message: Partial<pb.Op>): Digest {
	return definitionOf(message).ops[0]?.digest ?? assert.fail();
}

const source: Partial<pb.Op> = {
	op: { $case: "source", value: { identifier: "docker-image://x", attrs: new Map() } },
};
const inputOf = (message: Partial<pb.Op>, index = 0): pb.Input => ({ digest: digestOf(message), index });
const ending = (message: Partial<pb.Op>): Partial<pb.Op> => ({ inputs: [inputOf(message)] });
const alone = (message: Partial<pb.Op>) => definitionOf(source, message, ending(message));

function refuses(definition: Definition, message: string | RegExp, options?: LoadOptions): SlipwayError {
	try {
		load(definition, options);
	} catch (error) {
		assert.ok(error instanceof SlipwayError, String(error));
		if (typeof message === "string") {
			assert.equal(error.message, message);
		} else {
			assert.match(error.message, message);
		}
		return error;
	}
	return assert.fail("was loaded");
}

describe("load", () => {
	test("gives what was marshalled, also after a way over the wire", () => {
		const file = { filename: "Dockerfile", language: "Dockerfile", data: Buffer.from("FROM x") };
		const ranges = [{ start: { line: 1, character: 0 }, end: { line: 1, character: 6 } }];
		const state = busybox.run({
			args: ["make", "all"],
			mounts: [{ target: "/src", source: local("context"), readonly: true }],
			ignoreCache: true,
			exportCache: false,
			progressGroup: { id: "g", name: "group", weak: true },
			locations: [{ file: { ...file, output: local("dockerfile").output ?? assert.fail() }, ranges }],
		}).root;
		const definition = state.marshal({ localUniqueId: "x" });
		const decoded = decodeDefinition(encodeDefinition(definition));
		for (const { ops, root } of [load(definition), load(decoded)]) {
			assert.deepEqual(
				[...ops.keys()],
				definition.ops.slice(0, -1).map(({ digest }) => digest),
			);
			const exec = ops.get(root.digest) ?? assert.fail();
			assert.equal(root.index, 0);
			assert.equal(exec.name, "make all");
			assert.equal(exec.originalDigest, exec.digest);
			assert.deepEqual(exec.metadata, definition.metadata.get(exec.digest));
			assert.ok(exec.op.kind === "exec");
			assert.deepEqual(
				exec.op.mounts.map(({ kind, dest, input, output }) => [kind, dest, input, output]),
				[
					["bind", "/", 0, 0],
					["bind", "/src", 1, undefined],
				],
			);
			const [place] = exec.sources;
			assert.deepEqual(place?.ranges, ranges);
			assert.equal(place?.file.filename, "Dockerfile");
			assert.equal(Buffer.from(place?.file.data ?? []).toString(), "FROM x");
		}
		assert.equal(decoded.source?.files[0]?.definition?.ops.length, 2);
		assert.deepEqual(encodeDefinition(decoded), encodeDefinition(definition));
	});

	test("names ops as people read them", () => {
		const files = scratch().file([
			mkdir("/d", 0o755),
			mkfile("/f", 0o644, ""),
			symlink("old", "new"),
			rm("/r"),
			copy(busybox, "/a", "b/"),
		]);
		const named = busybox.run({ args: ["x"], name: "custom" }).root;
		const names = (state: State) => {
			const { ops, root } = load(state.marshal());
			return ops.get(root.digest)?.name;
		};
		assert.equal(names(busybox), "docker-image://docker.io/library/busybox:latest");
		assert.equal(names(files), "mkdir /d, mkfile /f, symlink new -> old, rm /r, copy /a /b/");
		assert.equal(
			names(merge([busybox, named])),
			"merge (docker-image://docker.io/library/busybox:latest, custom)",
		);
		assert.equal(
			names(diff(busybox, scratch())),
			"diff (docker-image://docker.io/library/busybox:latest) -> scratch",
		);
		assert.equal(names(busybox.requires("group", named)), "passthrough group");
		assert.equal(names(busybox.build()), "build");
	});

	test("renames ops that were not marshalled deterministically, and what uses them", () => {
		const canonical: Partial<pb.Op> = { ...source, constraints: { filter: [] } };
		// The same op with the constraints after the source.
		const shuffled = Buffer.concat([
			pb.Op.encode({ ...pb.emptyOp(), ...source }).finish(),
			Buffer.from([0x5a, 0x00]),
		]);
		const old = sha256(shuffled);
		assert.notEqual(old, digestOf(canonical));
		const user: Partial<pb.Op> = {
			inputs: [{ digest: old, index: 0 }],
			op: {
				$case: "file",
				value: {
					actions: [
						{
							input: 0,
							secondaryInput: -1,
							output: 0,
							action: { $case: "rm", value: { ...pb.emptyFileActionRm(), path: "/x" } },
						},
					],
				},
			},
		};
		const rest = definitionOf(user, ending(user));
		const definition: Definition = {
			ops: [{ digest: old, bytes: shuffled }, ...rest.ops],
			metadata: new Map([[old, { ignoreCache: true, description: new Map(), caps: new Set() }]]),
		};
		const { ops, root } = load(definition);
		assert.deepEqual([...ops.keys()], [digestOf(canonical), root.digest]);
		const renamed = ops.get(digestOf(canonical));
		assert.equal(renamed?.originalDigest, old);
		assert.equal(renamed?.metadata?.ignoreCache, true);
		assert.equal(root.digest, digestOf({ ...user, inputs: [inputOf(canonical)] }));
	});

	test("a replaced source has another digest, and so has what is built on it", () => {
		const definition = run(busybox, "x").marshal();
		const mapSource = () => ({ identifier: "docker-image://other", attrs: new Map([["a", "b"]]) });
		const { ops, root } = load(definition, { mapSource });
		assert.notEqual(root.digest, load(definition).root.digest);
		const [first] = ops.values();
		assert.ok(first?.op.kind === "source");
		assert.equal(first.op.identifier, "docker-image://other");
		assert.equal(first.originalDigest, definition.ops[0]?.digest);
	});

	test("an exec without a platform gets the given one, normalised ones stay", () => {
		const exec: Partial<pb.Op> = {
			inputs: [inputOf(source)],
			op: {
				$case: "exec",
				value: {
					...pb.emptyExecOp(),
					meta: { ...pb.emptyMeta(), args: ["x"] },
					mounts: [{ ...pb.emptyMount(), dest: "/" }],
				},
			},
		};
		const platform = { os: "linux", architecture: "riscv64" };
		const platformOf = ({ ops, root }: LoadedDefinition) => ops.get(root.digest)?.op.platform;
		assert.deepEqual(platformOf(load(alone(exec), { platform })), platform);
		const own = { ...pb.emptyPlatform(), Architecture: "aarch64", OS: "Linux", Variant: "v8" };
		assert.deepEqual(platformOf(load(alone({ ...exec, platform: own }), { platform })), {
			os: "linux",
			architecture: "arm64",
		});
	});

	test("only what the root needs is loaded", () => {
		const definition = run(busybox, "x").marshal();
		const extra = definitionOf({ op: { $case: "diff", value: { lower: undefined, upper: undefined } } });
		const { ops } = load({ ...definition, ops: [...extra.ops, ...definition.ops] });
		assert.equal(ops.size, 2);
	});

	test("20,000 ops in a chain, and names that double with each", () => {
		let state = busybox;
		for (let step = 0; step < 20_000; step++) {
			state = step % 2 === 0 ? state.file(rm(`/${step}`)) : state.withOutput(merge([state, state]).output);
		}
		const { ops, root } = load(state.marshal());
		assert.equal(ops.size, 20_001);
		assert.ok((ops.get(root.digest)?.name.length ?? 0) <= 4096);
	});
});

describe("load refuses", () => {
	test("what is no graph", () => {
		refuses({ ops: [], metadata: new Map() }, "invalid empty definition");
		refuses(definitionOf(source), "invalid LLB with 1 vertexes");
		refuses(definitionOf(source, {}), "invalid LLB with no inputs on last vertex");
		refuses(
			definitionOf(source, ending({ platform: pb.emptyPlatform() })),
			/^invalid missing input digest sha256:/,
		);
		refuses(definitionOf(source, { inputs: [{ digest: "", index: 0 }] }), "invalid missing input digest ");
		refuses(
			definitionOf(source, { inputs: [inputOf(source), inputOf(source, -2)] }),
			"invalid input 1 output index -2",
		);
		const two = definitionOf(source, { inputs: [inputOf(source), inputOf(source)] });
		assert.throws(() => load(two), { code: "internal", message: "invalid last vertex inputs: 2" });
		const bad = Buffer.from([0x0a, 0x50, 0x01]);
		const error = refuses(
			{ ops: [{ digest: sha256(bad), bytes: bad }], metadata: new Map() },
			/^failed to parse llb proto op: /,
		);
		assert.equal(findDetail(error, "vertex")?.digest, sha256(bad));
		// An op that names itself; only a wrong digest can do that.
		const self = "sha256:0" as Digest;
		const loop = definitionOf({ inputs: [{ digest: self, index: 0 }] }, ending(source));
		refuses(
			{ ...loop, ops: [{ digest: self, bytes: loop.ops[0]?.bytes ?? bad }, ...loop.ops] },
			"invalid input sha256:0 that needs itself",
		);
	});

	test("text that is not UTF-8, and numbers that are not safe", () => {
		const notText = Buffer.from([0x1a, 0x03, 0x0a, 0x01, 0xff]);
		refuses({ ops: [{ digest: sha256(notText), bytes: notText }], metadata: new Map() }, /^failed to parse/);
		const huge = Buffer.from([0x0a, 0x0a, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
		refuses({ ops: [{ digest: sha256(huge), bytes: huge }], metadata: new Map() }, /^failed to parse/);
	});

	test("ops that can't be", () => {
		const exec = (value: Partial<pb.ExecOp>): Partial<pb.Op> => ({
			op: {
				$case: "exec",
				value: {
					...pb.emptyExecOp(),
					meta: { ...pb.emptyMeta(), args: ["x"] },
					mounts: [{ ...pb.emptyMount(), dest: "/", input: -1 }],
					...value,
				},
			},
		});
		const mount = (value: Partial<pb.Mount>) =>
			exec({ mounts: [{ ...pb.emptyMount(), dest: "/", input: -1, ...value }] });
		const rmAction = (value: Partial<pb.FileAction>): pb.FileAction => ({
			input: -1,
			secondaryInput: -1,
			output: -1,
			action: { $case: "rm", value: pb.emptyFileActionRm() },
			...value,
		});
		const file = (...actions: readonly pb.FileAction[]): Partial<pb.Op> => ({
			op: { $case: "file", value: { actions } },
		});
		const number = (value: number) => value as 0;
		const cases: readonly (readonly [Partial<pb.Op>, string])[] = [
			[{ platform: pb.emptyPlatform() }, "no support for <nil>"],
			[exec({ meta: undefined }), "invalid exec op with no meta"],
			[exec({ meta: pb.emptyMeta() }), "invalid exec op with no args"],
			[exec({ mounts: [] }), "invalid exec op with no mounts"],
			[
				exec({ meta: { ...pb.emptyMeta(), args: ["echo", "a\0b"] } }),
				"invalid exec op with a zero byte in its args, env, cwd or user",
			],
			[
				exec({ meta: { ...pb.emptyMeta(), args: ["true"], extraHosts: [{ Host: "a", IP: "b" }] } }),
				"failed to parse IP b",
			],
			[mount({ dest: "/x" }), "invalid exec op with no rootfs"],
			[mount({ input: 0 }), "invalid mountinput 0 of /"],
			[mount({ output: -2 }), "invalid mount output -2 of /"],
			[mount({ mountType: number(9) }), "mount type 9 not implemented"],
			[mount({ contentCache: number(9) }), "invalid mount content cache 9"],
			[
				mount({ mountType: pb.MountType.CACHE, cacheOpt: { ID: "", sharing: number(9) } }),
				"invalid cache sharing mode 9",
			],
			[mount({ mountType: pb.MountType.CACHE }), "missing cache mount options"],
			[exec({ network: number(9) }), "invalid network mode 9"],
			[exec({ security: number(9) }), "invalid security mode 9"],
			[file(), "invalid file op with no actions"],
			[file(rmAction({ input: 1, output: 0 })), "invalid input index 1, 1 provided"],
			[file(rmAction({ secondaryInput: -2 })), "invalid secondary input index -2, 1 provided"],
			[file(rmAction({ output: -2 })), "invalid output index -2"],
			[file(rmAction({})), "no outputs specified"],
			[file(rmAction({ output: 1 })), "missing output index 0"],
			[file(rmAction({ output: 0 }), rmAction({ output: 0 })), "duplicate output 0"],
			[file(rmAction({ output: 0, action: undefined })), "invalid action type <nil>"],
			[file(rmAction({ input: 0, output: 0 })), "loop from index 0"],
			[file(rmAction({ input: 1 }), rmAction({ secondaryInput: 0, output: 0 })), "loop from index 0"],
			[
				file(
					rmAction({
						output: 0,
						action: {
							$case: "mkdir",
							value: {
								...pb.emptyFileActionMkDir(),
								owner: {
									user: { user: { $case: "byName", value: { name: "u", input: 0 } } },
									group: undefined,
								},
							},
						},
					}),
				),
				"invalid input index 0 in file op with 0 inputs",
			],
			[{ op: { $case: "merge", value: { inputs: [{ input: 3 }] } } }, "invalid merge input index 3"],
			[
				{ op: { $case: "diff", value: { lower: { input: -1 }, upper: undefined } } },
				"invalid diff op with nil lower or upper input",
			],
			[
				{ op: { $case: "diff", value: { lower: { input: -1 }, upper: { input: 0 } } } },
				"invalid diff input index 0",
			],
			[{ op: { $case: "passthrough", value: { id: "", outputs: [] } } }, "invalid passthrough op with no id"],
			[
				{ op: { $case: "passthrough", value: { id: "a", outputs: [] } } },
				"invalid passthrough op with no outputs",
			],
			[
				{ op: { $case: "passthrough", value: { id: "a", outputs: [-1] } } },
				"invalid passthrough output input index -1",
			],
		];
		for (const [message, expected] of cases) {
			const error = refuses(alone(message), expected);
			assert.equal(error.code, "invalid-argument");
			assert.equal(findDetail(error, "vertex")?.digest, digestOf(message));
		}
	});

	test("capabilities that are not there", () => {
		const definition = busybox.marshal();
		const digest = definition.ops[0]?.digest ?? assert.fail();
		const needing = (cap: string): Definition => ({
			...definition,
			metadata: new Map([[digest, { ignoreCache: false, description: new Map(), caps: new Set([cap]) }]]),
		});
		load(needing("soruce.http.uidgid"));
		for (const cap of ["file.copy.modestring", "exec.meta.removemountstubs.recursive", "x"]) {
			const error = refuses(needing(cap), `unknown API capability ${cap}`);
			assert.equal(error.code, "unimplemented");
		}
	});

	test("bytes that are no definition", () => {
		assert.throws(() => decodeDefinition(Buffer.from([0x0a, 0xff])), /^SlipwayError: invalid definition: /);
		const location = pb.Definition.encode({
			...pb.emptyDefinition(),
			Source: {
				...pb.emptySource(),
				locations: new Map([["x", { locations: [{ sourceIndex: 1, ranges: [] }] }]]),
			},
		}).finish();
		assert.throws(() => decodeDefinition(location), /failed to find source map with index 1/);
	});
});

describe("definitionOutput", () => {
	test("builds on a definition without changing its ops", () => {
		const file = { filename: "f", data: Buffer.from("x") };
		const inner = busybox
			.run({
				args: ["a"],
				mounts: [{ target: "/m" }],
				name: "n",
				platform: { os: "linux", architecture: "arm" },
			})
			.mount("/m")
			.marshal();
		const located = image("x", { locations: [{ file, ranges: [] }] }).marshal();
		const output = definitionOutput(inner);
		const outer = run(stateOf(output), "b").marshal();
		assert.deepEqual(outer.ops.slice(0, 2), inner.ops.slice(0, 2));
		const [, exec] = inner.ops;
		assert.deepEqual(outer.metadata.get(exec?.digest ?? ""), inner.metadata.get(exec?.digest ?? ""));
		const loaded = load(outer);
		assert.deepEqual(loaded.ops.get(loaded.root.digest)?.op.inputs, [{ digest: exec?.digest, index: 1 }]);
		assert.deepEqual(stateOf(output).platform, { os: "linux", architecture: "arm", variant: "v7" });
		assert.deepEqual(stateOf(definitionOutput(located)).marshal(), located);
		assert.equal(definitionOutput(scratch().marshal()), undefined);
	});

	test("refuses what has no root", () => {
		assert.throws(() => definitionOutput(definitionOf(source)), /no inputs on last vertex/);
		assert.throws(() => definitionOutput(definitionOf(ending(source))), /invalid missing input digest/);
	});
});
