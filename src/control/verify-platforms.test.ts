import assert from "node:assert/strict";
import { test } from "node:test";
import type { BuildResult } from "../exporter/exporter.ts";
import { hostPlatform } from "../oci/platform.ts";
import { verifyPlatforms } from "./verify-platforms.ts";

function result(ids: readonly string[], { isMap = false, listed = true } = {}): BuildResult {
	const list = ids.map((id) => {
		const [os, architecture] = id.split("/");
		return { ID: id, Platform: { os, architecture } };
	});
	const ref = {} as BuildResult["ref"];
	return {
		ref: isMap ? undefined : ref,
		refs: new Map(isMap ? ids.map((id) => [id, ref]) : []),
		metadata: listed ? { "refs.platforms": Buffer.from(JSON.stringify({ Platforms: list })) } : {},
	};
}

for (const [title, made, asked, sentences] of [
	["what was asked for", result(["linux/arm64"]), "linux/arm64", []],
	[
		"several that were asked for",
		result(["linux/arm64", "linux/amd64"], { isMap: true }),
		"linux/amd64,linux/arm64",
		[],
	],
	["nothing said and nothing made", { ...result([], { listed: false }), ref: undefined }, undefined, []],
	[
		"another one",
		result(["linux/arm64"]),
		"linux/amd64",
		['Requested platform "linux/amd64" does not match result platform "linux/arm64"'],
	],
	[
		"one for several",
		result(["linux/arm64"]),
		"linux/amd64,linux/arm64",
		["Multiple platforms requested but result is not multi-platform"],
	],
	[
		"others",
		result(["linux/arm64", "linux/s390x"], { isMap: true }),
		"linux/amd64,linux/arm64",
		["Requested platforms linux/amd64,linux/arm64 do not match result platforms linux/arm64,linux/s390x"],
	],
	[
		"one twice",
		result(["linux/amd64"]),
		"linux/amd64,linux/x86_64",
		['Duplicate platform result requested "linux/x86_64"'],
	],
] as const) {
	test(`verifyPlatforms: ${title}`, () => {
		assert.deepEqual(verifyPlatforms(made, asked), sentences);
	});
}

test("verifyPlatforms: without a wish it is the machine's own", () => {
	const { os, architecture } = hostPlatform();
	assert.deepEqual(verifyPlatforms(result([`${os}/${architecture}`]), undefined), []);
});

test("verifyPlatforms: trees of which nobody knows what they are for", () => {
	assert.throws(() => verifyPlatforms(result(["x/y"], { isMap: true, listed: false }), undefined), {
		message: "build result contains multiple refs without platforms mapping",
	});
});
