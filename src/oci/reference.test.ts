import assert from "node:assert/strict";
import { test } from "node:test";
import { sha256 } from "./digest.ts";
import {
	familiarName,
	familiarReference,
	formatReference,
	parseReference,
	referenceName,
	withDefaultTag,
	withDigest,
	withoutTagAndDigest,
	withTag,
} from "./reference.ts";

const digest = sha256("x");

test("parseReference: full and familiar forms", () => {
	const cases: readonly (readonly [text: string, full: string, familiar: string])[] = [
		["alpine", "docker.io/library/alpine", "alpine"],
		["alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"],
		["docker.io/alpine", "docker.io/library/alpine", "alpine"],
		["index.docker.io/library/alpine", "docker.io/library/alpine", "alpine"],
		["moby/buildkit:master", "docker.io/moby/buildkit:master", "moby/buildkit:master"],
		["docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"],
		["localhost/x", "localhost/x", "localhost/x"],
		["localhost:5000/x/y:t", "localhost:5000/x/y:t", "localhost:5000/x/y:t"],
		["[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"],
		["ghcr.io/a/b__c.d-e", "ghcr.io/a/b__c.d-e", "ghcr.io/a/b__c.d-e"],
		["Host/x", "Host/x", "Host/x"],
		[`x@${digest}`, `docker.io/library/x@${digest}`, `x@${digest}`],
		[`x:t@${digest}`, `docker.io/library/x:t@${digest}`, `x:t@${digest}`],
	];
	for (const [text, full, familiar] of cases) {
		const reference = parseReference(text);
		assert.equal(formatReference(reference), full, text);
		assert.equal(familiarReference(reference), familiar, text);
		assert.deepEqual(parseReference(full), reference, text);
	}
});

test("parseReference: messages of Go's library", () => {
	const hex = "a".repeat(64);
	const cases: readonly (readonly [text: string, message: string])[] = [
		["", "invalid reference format"],
		["a b", "invalid reference format"],
		["a//b", "invalid reference format"],
		["https://x/y", "invalid reference format"],
		["a:", "invalid reference format"],
		[`a:${"t".repeat(129)}`, "invalid reference format"],
		["Alpine", "invalid reference format: repository name (library/Alpine) must be lowercase"],
		["x.io/A/b:t", "invalid reference format: repository name (A/b) must be lowercase"],
		[hex, `invalid repository name (${hex}), cannot specify 64-byte hexadecimal strings`],
		["p".repeat(300), "repository name must not be more than 255 characters"],
		[`x@sha256:${"a".repeat(63)}`, "invalid checksum digest length"],
		[`x@sha256:${"A".repeat(64)}`, "invalid checksum digest format"],
		[`x@md5:${"a".repeat(32)}`, "unsupported digest algorithm"],
		[`x:t@MD5:${"a".repeat(32)}`, "invalid checksum digest format"],
	];
	for (const [text, message] of cases) {
		assert.throws(() => parseReference(text), { code: "invalid-argument", message }, text);
	}
});

test("references are taken apart and put together", () => {
	const reference = parseReference("alpine");
	assert.equal(referenceName(reference), "docker.io/library/alpine");
	assert.equal(familiarName(withTag(reference, "t")), "alpine");
	assert.equal(withDefaultTag(reference).tag, "latest");
	assert.equal(withDefaultTag(withTag(reference, "t")).tag, "t");
	assert.equal(withDefaultTag(withDigest(reference, digest)).tag, undefined);
	assert.deepEqual(withoutTagAndDigest(withTag(withDigest(reference, digest), "t")), reference);
	assert.throws(() => withTag(reference, "a/b"), { message: "invalid tag format" });
});
