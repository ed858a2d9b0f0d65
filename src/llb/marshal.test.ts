import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { hasCode } from "../errors/errors.ts";
import { parseImageConfig } from "../oci/image-config.ts";
import type { Platform } from "../oci/platform.ts";
import { createCapabilitySet, ownCapabilities } from "./capabilities.ts";
import { bindSteps, copy, mkdir, mkfile, parseOwner, rm, symlink } from "./file-steps.ts";
import { type Definition, deferredOutput, type OpMetadata } from "./llb.ts";
import { type MarshalOptions, marshal } from "./marshal.ts";
import { outputOf, sourceNode } from "./ops.ts";
import { git, http, image, imageBlob, local, ociLayout, ociLayoutBlob } from "./sources.ts";
import { diff, merge, type State, scratch, stateOf } from "./state.ts";

interface GoOp {
	readonly digest: string;
	readonly caps: readonly string[];
	readonly metadata: unknown;
}

/** What BuildKit's Go client (v0.32.0-57-g73ed6825c) gives for the same calls as in `cases`. */
const goClient: Readonly<Record<string, readonly GoOp[]>> = JSON.parse(
	readFileSync(join(import.meta.dirname, "go-client.json"), "utf8"),
);

const amd64: Platform = { os: "linux", architecture: "amd64" };
const noCaps = createCapabilitySet([]);
const hex64 = (digit: string) => digit.repeat(64);

interface Case {
	readonly state: State;
	readonly options?: MarshalOptions;
}

const busybox = image("busybox");
const src = local("src");
const createdNs = 1_700_000_000_123_456_789n;
const run = (state: State, ...args: readonly string[]) => state.run({ args }).root;
const r1 = run(busybox, "1");
const r2 = run(busybox, "2");
const bound = bindSteps(busybox.withDir("/q"), [mkdir("m", 0o700), mkfile("n", 0o600, "x")]);

const cases: Readonly<Record<string, Case>> = {
	scratch: { state: scratch() },
	image: { state: busybox },
	"image-options": {
		state: image(`docker.io/library/alpine:3@sha256:${hex64("a")}`, {
			resolveMode: "pull",
			recordType: "internal",
			layerLimit: 3,
			checksum: `sha256:${hex64("b")}`,
			platform: { os: "linux", architecture: "arm", variant: "v7" },
		}),
	},
	"image-local": { state: image("localhost:5000/a/b:t", { resolveMode: "local" }) },
	local: {
		state: local("context", {
			includePatterns: ["a<b>", "c"],
			excludePatterns: ["x&y"],
			followPaths: ["ü"],
			sharedKeyHint: "hint",
			differ: { kind: "none", required: false },
			name: "load",
		}),
	},
	"local-session": {
		state: local("context", {
			sessionId: "s1",
			differ: { kind: "metadata", required: true },
			metadataOnly: { exceptions: ["e"] },
		}),
	},
	"oci-layout": {
		state: ociLayout(`foo@sha256:${hex64("c")}`, { sessionId: "sess", storeId: "store", layerLimit: 1 }),
	},
	"image-blob": {
		state: imageBlob(`foo/bar@sha256:${hex64("c")}`, { filename: "f", perm: 0o644, uid: 1, gid: 2 }),
	},
	"oci-blob": { state: ociLayoutBlob(`foo/bar@sha256:${hex64("c")}`, { sessionId: "s", storeId: "t" }) },
	git: {
		state: git("https://github.com/moby/buildkit.git", {
			ref: "master",
			subdir: "a/b",
			keepGitDir: true,
			checksum: "abc",
			skipSubmodules: true,
			mtime: "commit",
			authTokenSecret: "TOK",
		}),
	},
	"git-ssh": {
		state: git("ssh://git@example.com:2222/x/../y.git", {
			knownSshHosts: "example.com ssh-ed25519 AAAA\n",
			mountSshSock: "sock",
		}),
	},
	"git-plain": { state: git("https://example.com/r") },
	"git-scp": { state: git("git@example.com:org/../repo.git?a=b#frag", { knownSshHosts: "k\n" }) },
	"git-rootless": { state: git("github.com/a/b", { ref: "main" }) },
	"git-invalid": { state: git("ftp://x/y", { ref: "ref", subdir: "sub" }) },
	"git-encoded": {
		state: git("HTTPS://u:p@Example.com:443/a%20b/../c.git?x=1#frag", { ref: "r", subdir: "s" }),
	},
	http: {
		state: http("https://example.com/file", {
			checksum: `sha256:${hex64("d")}`,
			filename: "f",
			perm: 0o4755,
			uid: 5,
			gid: 0,
			authHeaderSecret: "sec",
			header: { accept: "a", userAgent: "b" },
			signature: { pubKey: "k", signature: "s" },
		}),
	},
	"http-plain": { state: http("http://example.com/") },
	run: { state: run(busybox, "sh", "-c", "echo <hi>") },
	"run-allcaps": { state: run(busybox, "true"), options: { caps: ownCapabilities } },
	"run-nocaps": { state: run(busybox.withEnv("A", "1"), "true"), options: { caps: noCaps } },
	"run-values": {
		state: busybox
			.withEnv("A", "1")
			.withEnv("B", "2")
			.withEnv("A", "3")
			.withDir("/w")
			.withDir("x/../y")
			.withUser("u:g")
			.withHostname("h")
			.withExtraHost("a", "1.2.3.4")
			.withExtraHost("b", "2001:db8:0:0::1")
			.withUlimit("nofile", 10, -1)
			.withCgroupParent("cg")
			.withNetwork("host")
			.withSecurity("insecure")
			.run({
				args: ["a"],
				proxyEnv: { httpProxy: "p", httpsProxy: "", ftpProxy: "", noProxy: "n", allProxy: "" },
				validExitCodes: [0, 3, -1],
				devices: [{ name: "v/c=d", optional: true }],
				linuxResources: {
					memory: 5,
					memorySwap: 0,
					cpuShares: 0,
					cpuPeriod: 0,
					cpuQuota: -1,
					cpusetCpus: "0-1",
					cpusetMems: "",
				},
				ignoreCache: true,
				name: "n",
				description: { k: "v" },
				progressGroup: { id: "id", name: "nm", weak: true },
				exportCache: false,
				filters: ["a==b"],
			}).root,
	},
	"run-mounts": {
		state: busybox.run({
			args: ["a"],
			mounts: [
				{ target: "/z", source: src, readonly: true, selector: "sub/dir" },
				{ target: "/b", source: src, selector: "/" },
				{ target: "/a", source: busybox },
				{ target: "/m" },
				{ target: "/n", source: src, noOutput: true, contentCache: "on" },
				{ target: "/o", source: busybox, contentCache: "off" },
				{ target: "/cache", cache: { id: "id", sharing: "locked" } },
				{ target: "/cache2", source: src, cache: { id: "id2", sharing: "private" }, selector: "s" },
				{ target: "/cache3", cache: { id: "/cache3", sharing: "shared" } },
				{ target: "/t", tmpfs: { size: 1 << 20 } },
				{ target: "/t2", tmpfs: {} },
			],
		}).root,
	},
	"run-mount-output": {
		state: run(
			stateOf(
				busybox
					.run({
						args: ["a"],
						readonlyRoot: true,
						mounts: [{ target: "/out" }, { target: "/in", source: src, readonly: true }],
					})
					.mount("/out").output,
			),
			"b",
		),
	},
	"run-add-mount": {
		state: run(
			busybox
				.run({ args: ["a"], mounts: [{ target: "/b-out", source: scratch().withEnv("Q", "1") }] })
				.mount("/b-out"),
			"b",
		),
	},
	"run-secrets": {
		state: busybox.run({
			args: ["a"],
			secrets: [
				{ id: "/s1", target: "/s1" },
				{ id: "id2", target: "/run/secrets/x", uid: 1, gid: 2, mode: 0o644, optional: true },
				{ id: "id3", env: "ENV3" },
				{ id: "id4", target: "/run/secrets/x", env: "ENV4", optional: true },
			],
			ssh: [{}, { id: "k", target: "/sock", uid: 3, gid: 4, mode: 0o666, optional: true }],
		}).root,
	},
	"run-platform": {
		state: run(
			run(image("busybox", { platform: { os: "linux", architecture: "arm64", variant: "v8" } }), "a").run({
				args: ["b"],
				platform: {
					os: "windows",
					architecture: "amd64",
					"os.version": "10.0",
					"os.features": ["win32k"],
				},
			}).root,
			"c",
		),
		options: { caps: noCaps },
	},
	"run-chain": {
		state: run(
			busybox
				.run({ args: ["a"], with: (state) => state.withNetwork("none") })
				.root.run({ args: ["b"], with: (state) => state.withEnv("X", "") }).root,
			"c",
		),
		options: { constraints: { platform: amd64, name: "base" } },
	},
	"file-mkdir": { state: scratch().file(mkdir("/a/../b/", 0o1755)) },
	"file-all": {
		state: busybox
			.withDir("/work")
			.file([
				mkdir("d", 0o755, { makeParents: true, owner: parseOwner("root:5"), createdNs }),
				mkfile("/f", 0o644, "data\0", { owner: parseOwner("bob:staff"), createdNs: 0n }),
				symlink("old", "new", { owner: { user: { kind: "id", id: 7 }, group: { kind: "id", id: 8 } } }),
				rm("gone", { allowNotFound: true, allowWildcard: true }),
				copy(src, "s", "dst/"),
			]),
	},
	"file-copy": {
		state: busybox.file(
			copy(src.withDir("/in"), "a/../b*", "rel/.", {
				mode: 0o600,
				followSymlinks: true,
				dirContentsOnly: true,
				includePatterns: ["i"],
				excludePatterns: ["e"],
				requiredPaths: ["r"],
				attemptUnpack: true,
				createDestPath: true,
				allowWildcard: true,
				allowEmptyWildcard: true,
				createdNs,
				alwaysReplaceExistingDestPaths: true,
				owner: parseOwner("me"),
			}),
		),
	},
	"file-copy-mode": {
		state: scratch().file(
			[copy(src, "/", "/", { mode: "u+x,go-w" }), copy(scratch(), "x", "/."), copy(busybox, "y", "z")],
			{ name: "c" },
		),
	},
	"file-nested": {
		state: src.file([
			mkdir("/r", 0o755),
			copy(bound, "n", "/r/n"),
			copy(bound, "m", "/r/m"),
			copy(bindSteps(scratch(), mkfile("/k", 0o600, "")), "/k", "/l"),
		]),
	},
	"file-nested2": { state: scratch().file(copy(bound, "n", "/r/n")) },
	"file-self": { state: busybox.file(copy(busybox, "/a", "/b")) },
	merge: { state: merge([busybox, scratch(), r1, r2, r1], { name: "m" }) },
	"merge-one": { state: merge([scratch(), r1]) },
	diff: { state: diff(busybox, r1) },
	"diff-scratch-upper": { state: diff(busybox, scratch()) },
	"diff-scratch-lower": { state: diff(scratch(), r1) },
	"merge-diff-run": {
		state: run(merge([busybox.withDir("/d").withEnv("K", "v"), diff(busybox, r1), diff(busybox, r2)]), "3"),
	},
	requires: { state: r1.requires("group", r2, scratch(), src) },
	build: { state: busybox.build("def", { name: "b" }) },
	"build-default": { state: busybox.build() },
	reset: { state: run(busybox.withDir("/x").reset(scratch().withDir("/y").withEnv("E", "1")), "p") },
	"reset-platform": {
		state: run(
			image("busybox", { platform: { os: "linux", architecture: "arm64" } })
				.withDir("/x")
				.reset(scratch().withDir("/y").withEnv("E", "1")),
			"p",
		),
	},
	"image-config": {
		state: run(
			busybox
				.withDir("/pre")
				.withImageConfig(
					parseImageConfig(
						Buffer.from(
							'{"architecture":"arm","os":"linux","variant":"v6","config":{"Env":["PATH=/bin","X","=bad","Y=a=b"],"WorkingDir":"wd"}}',
						),
					),
				),
			"p",
		),
	},
	"same-op-twice": {
		state: merge([
			busybox.run({ args: ["1"], name: "one" }).root,
			busybox.run({ args: ["1"], ignoreCache: true, description: { x: "y" }, exportCache: true }).root,
		]),
	},
	"base-constraints": {
		state: busybox.run({ args: ["1"], filters: ["own"] }).root,
		options: {
			constraints: {
				platform: amd64,
				filters: ["base"],
				ignoreCache: true,
				progressGroup: { id: "g", name: "n", weak: false },
			},
		},
	},
	"env-empty-attr": {
		state: stateOf(
			outputOf(
				sourceNode("docker-image://x", {
					attrs: new Map([
						["empty", ""],
						["\u{1F600}", "emoji"],
						["\uFFFD", "bmp"],
						["a", "1"],
					]),
				}),
			),
		),
	},
};

describe("marshal gives the ops, order and metadata of BuildKit's Go client", () => {
	test("for every case", () => {
		assert.deepEqual(Object.keys(cases).sort(), Object.keys(goClient).sort());
	});
	for (const [name, { state, options }] of Object.entries(cases)) {
		test(name, () => {
			const definition = state.marshal({
				constraints: { platform: amd64 },
				localUniqueId: "unique",
				...options,
			});
			assert.deepEqual(describeDefinition(definition), goClient[name]);
		});
	}
});

function describeDefinition({ ops, metadata }: Definition): readonly GoOp[] {
	return ops.map(({ digest }) => {
		const own = metadata.get(digest);
		return { digest, caps: [...(own?.caps ?? [])].sort(), metadata: own === undefined ? {} : toGo(own) };
	});
}

/** The metadata as Go's JSON has it, where zero values are left out. */
function toGo(metadata: OpMetadata): object {
	const present = (object: object) =>
		Object.fromEntries(Object.entries(object).filter(([, value]) => value && value !== ""));
	return {
		...(metadata.ignoreCache ? { ignore_cache: true } : {}),
		...(metadata.description.size === 0 ? {} : { description: Object.fromEntries(metadata.description) }),
		...(metadata.exportCache === undefined ? {} : { export_cache: present({ Value: metadata.exportCache }) }),
		...(metadata.progressGroup === undefined ? {} : { progress_group: present(metadata.progressGroup) }),
		...(metadata.linuxResources === undefined ? {} : { linux_resources: present(metadata.linuxResources) }),
	};
}

describe("marshal", () => {
	test("a chain of 20,000 ops takes no stack", () => {
		let state = busybox;
		for (let step = 0; step < 20_000; step++) {
			state = state.file(mkdir(`/${step}`, 0o755));
		}
		assert.equal(state.marshal().ops.length, 20_002);
	});

	test("a deferred output is resolved once, and may not lead to itself", () => {
		let calls = 0;
		const context = stateOf(
			deferredOutput(() => {
				calls++;
				return local("late").output ?? assert.fail();
			}),
		);
		const definition = merge([context.file(rm("/a")), context.file(rm("/b"))]).marshal();
		assert.equal(calls, 1);
		assert.equal(definition.ops.length, 5);

		const loop = deferredOutput(() => state.output ?? assert.fail());
		const state: State = stateOf(loop).file(rm("/a"));
		assert.throws(
			() => state.marshal(),
			(error) => hasCode(error, "internal"),
		);
	});

	test("a local directory has one id per marshal", () => {
		const first = src.marshal();
		assert.notEqual(first.ops[0]?.digest, src.marshal().ops[0]?.digest);
		assert.equal(
			src.marshal({ localUniqueId: "x" }).ops[0]?.digest,
			src.marshal({ localUniqueId: "x" }).ops[0]?.digest,
		);
	});

	test("locations of equal files are one file, by op", () => {
		const file = (text: string) => ({
			filename: "Dockerfile",
			language: "Dockerfile",
			data: Buffer.from(text),
			...(text === "a" ? { output: src.output ?? assert.fail() } : {}),
		});
		const at = (line: number) => [{ start: { line, character: 0 }, end: { line, character: 5 } }];
		const base = image("busybox", { locations: [{ file: file("a"), ranges: at(1) }] });
		const definition = base
			.run({
				args: ["x"],
				locations: [
					{ file: file("a"), ranges: at(2) },
					{ file: file("b"), ranges: at(3) },
				],
			})
			.root.marshal();
		const { source } = definition;
		assert.deepEqual(
			source?.files.map(({ filename, data }) => [filename, Buffer.from(data).toString()]),
			[
				["Dockerfile", "a"],
				["Dockerfile", "b"],
			],
		);
		assert.equal(source?.files[0]?.definition?.ops.length, 2);
		assert.deepEqual(
			definition.ops.map(({ digest }) => source?.locations.get(digest)?.map(({ file }) => file)),
			[[0], [0, 1], undefined],
		);
	});

	test("what can't be built on, or run, is refused", () => {
		const invalid = (work: () => unknown, message: RegExp) =>
			assert.throws(work, (error) => hasCode(error, "invalid-argument") && message.test(String(error)));
		const exec = busybox.run({
			args: ["a"],
			mounts: [
				{ target: "/t", tmpfs: {} },
				{ target: "/n", noOutput: true },
				{ target: "/c", cache: { id: "c", sharing: "shared" } },
			],
		});
		invalid(() => exec.mount("/t"), /tmpfs mount at \/t can't be used as a parent/);
		invalid(() => exec.mount("/n"), /no-output mount at \/n/);
		invalid(() => exec.mount("/c"), /cache mount at \/c/);
		invalid(() => exec.mount("/x"), /no mount at \/x/);
		invalid(() => busybox.run({ args: [] }), /arguments are required/);
		invalid(
			() => busybox.run({ args: ["a"], mounts: [{ target: "/t", tmpfs: {}, source: src }] }),
			/scratch/,
		);
		invalid(() => busybox.file([]), /action is required/);
		invalid(() => image("Bad Name"), /invalid reference/);
		invalid(() => imageBlob("busybox:1"), /tagged/);
		invalid(() => imageBlob("busybox"), /checksum required/);
		invalid(() => scratch().withExtraHost("a", "1.2.3"), /invalid IP/);
		invalid(() => scratch().requires("id", r1), /at least one output/);
		invalid(() => r1.requires("", r2), /requires an id/);
		invalid(() => scratch().build(), /no definition/);
		assert.deepEqual(marshal(undefined), { ops: [], metadata: new Map() });
	});

	test("addresses are written as Go writes them", () => {
		const ips = ["::ffff:10.0.0.1", "2001:DB8::0:1", "::1"].map(
			(ip) => scratch().withExtraHost("a", ip).extraHosts[0]?.ip,
		);
		assert.deepEqual(ips, ["10.0.0.1", "2001:db8::1", "::1"]);
	});
});
