import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import * as pb from "../api/generated/ops.ts";
import { sha256 } from "../oci/digest.ts";
import { hostPlatform } from "../oci/platform.ts";
import {
	buildCacheDigest,
	dedupePaths,
	dedupeSelectors,
	diffCacheDigest,
	execCacheDigest,
	execDependencies,
	fileCacheDigest,
	fileDependencies,
	type InputDependency,
	mergeCacheDigest,
	passthroughCacheDigest,
	sourceCacheDigest,
} from "./cache-digest.ts";
import { copy } from "./file-steps.ts";
import { load } from "./load.ts";
import type { Op } from "./op.ts";
import { fromOpMessage } from "./op-from-message.ts";
import { encodeOp, rememberMessage } from "./op-message.ts";
import { local } from "./sources.ts";
import { scratch } from "./state.ts";

interface GoFact {
	readonly name: string;
	/** Hex of the op. */
	readonly op: string;
	readonly digest: string;
	/** The op's digest after Go has read and written it. */
	readonly remarshalled: string;
	readonly inputs: readonly { readonly selector: string; readonly byContent: boolean }[];
	readonly error?: string;
}

/** What BuildKit's ops (v0.32.0-57-g73ed6825c) answer as their cache maps. */
const facts: readonly GoFact[] = JSON.parse(readFileSync(join(import.meta.dirname, "go-cache.json"), "utf8"));

function decode(hex: string): Op {
	const message = pb.Op.decode(Buffer.from(hex, "hex"));
	return rememberMessage(fromOpMessage(message), message);
}

function cacheMapOf(op: Op): { readonly digest: string; readonly inputs: readonly InputDependency[] } {
	const plain = op.inputs.map(() => ({ byContent: false, selectors: [] }));
	switch (op.kind) {
		case "exec":
			return {
				digest: execCacheDigest(op, op.platform ?? hostPlatform()),
				inputs: execDependencies(op),
			};
		case "file":
			return { digest: fileCacheDigest(op), inputs: fileDependencies(op) };
		case "merge":
			return { digest: mergeCacheDigest(op), inputs: plain };
		case "diff":
			return { digest: diffCacheDigest(op), inputs: plain };
		case "passthrough":
			return { digest: passthroughCacheDigest(op), inputs: plain };
		case "build":
			return { digest: buildCacheDigest(op), inputs: plain };
		case "source":
			return assert.fail();
	}
}

describe("cache maps and re-marshalled digests are BuildKit's", () => {
	for (const fact of facts) {
		test(fact.name, () => {
			const bytes = Buffer.from(fact.op, "hex");
			assert.equal(sha256(pb.Op.encode(pb.Op.decode(bytes)).finish()), fact.remarshalled);
			if (fact.error !== undefined) {
				assert.throws(() => cacheMapOf(decode(fact.op)), /invalid mount/);
				return;
			}
			const { digest, inputs } = cacheMapOf(decode(fact.op));
			assert.equal(digest, fact.digest);
			assert.deepEqual(
				inputs.map(({ selector = "", byContent }) => ({ selector, byContent })),
				fact.inputs,
			);
		});
	}
});

test("an op that no message is known of has the message that it is written as", () => {
	const [fact] = facts.filter(({ name }) => name.startsWith("file-all"));
	const op = fromOpMessage(pb.Op.decode(Buffer.from(fact?.op ?? "", "hex")));
	assert.equal(cacheMapOf(op).digest, fact?.digest);
	assert.equal(Buffer.from(encodeOp(op)).toString("hex"), fact?.op);
});

test("sourceCacheDigest: keys of a session are random", () => {
	assert.equal(sourceCacheDigest("x"), sha256("buildkit.source.v0:x"));
	const digest = sha256("buildkit.source.v0:session:x");
	assert.equal(sourceCacheDigest("session:x"), digest.replace("sha256:", "random:"));
});

describe("selectors of content", () => {
	test("dedupePaths leaves out what lies below another path", () => {
		assert.deepEqual(dedupePaths(["/a/b/c", "/a/b/c/d", "/a/b", "/a/bc", "/z", "/z"]), [
			"/a/b",
			"/a/bc",
			"/z",
		]);
		assert.deepEqual(dedupePaths(["/foo", "/foo/bar/", "/foo/bar/baz", "/foobar"]), ["/foo", "/foobar"]);
		assert.deepEqual(dedupePaths(["/b", "/", "/a"]), ["/"]);
		assert.deepEqual(dedupePaths(["/a/", "/a/b", "/a"]), ["/a"]);
		assert.deepEqual(dedupePaths(["/b", "/b"]), ["/b"]);
	});

	test("dedupeSelectors keeps what has patterns and sorts by path", () => {
		const base = {
			wildcard: false,
			followLinks: false,
			includePatterns: [],
			excludePatterns: [],
			requiredPaths: [],
		};
		const selectors = dedupeSelectors([
			{ ...base, path: "/b" },
			{ ...base, path: "/b/c" },
			{ ...base, path: "/b/c", followLinks: true },
			{ ...base, path: "/b/d", excludePatterns: ["x"] },
			{ ...base, path: "/a*", wildcard: true },
		]);
		assert.deepEqual(
			selectors.map(({ path, followLinks, wildcard }) => [path, followLinks, wildcard]),
			[
				["/a*", false, true],
				["/b", false, false],
				["/b/c", true, false],
				["/b/d", false, false],
			],
		);
	});

	test("a copy's selectors say what is to be digested", () => {
		const options = { followSymlinks: true, allowWildcard: true, excludePatterns: ["e"] };
		const { ops, root } = load(
			scratch()
				.file([
					copy(local("context"), "/src/*.c", "/", options),
					copy(local("context"), "/no\\*wild", "/", { allowWildcard: true }),
				])
				.marshal(),
		);
		const op = ops.get(root.digest)?.op;
		assert.ok(op?.kind === "file");
		assert.deepEqual(fileDependencies(op)[0]?.selectors, [
			{
				path: "/no\\*wild",
				wildcard: false,
				followLinks: false,
				includePatterns: [],
				excludePatterns: [],
				requiredPaths: [],
			},
			{
				path: "/src/*.c",
				wildcard: true,
				followLinks: true,
				includePatterns: [],
				excludePatterns: ["e"],
				requiredPaths: [],
			},
		]);
	});
});
