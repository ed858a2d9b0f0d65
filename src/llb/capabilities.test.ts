import assert from "node:assert/strict";
import { test } from "node:test";
import { hasCode } from "../errors/errors.ts";
import {
	checkCapabilities,
	createCapabilitySet,
	listCapabilities,
	llbCapabilities,
	ownCapabilities,
} from "./capabilities.ts";

test("the registry is BuildKit's, with its misspelling and without what it does not register", () => {
	// `Caps.All()` of v0.32.0-57-g73ed6825c.
	assert.equal(llbCapabilities.size, 88);
	const ids = listCapabilities().map(({ id }) => id);
	assert.deepEqual(ids, [...ids].sort());
	assert.ok(llbCapabilities.has("soruce.http.uidgid"));
	assert.ok(!llbCapabilities.has("source.http.uidgid"));
	assert.ok(!llbCapabilities.has("file.copy.modestring"));
	assert.ok(!llbCapabilities.has("exec.meta.removemountstubs.recursive"));
});

test("checkCapabilities names what is missing", () => {
	checkCapabilities(llbCapabilities.keys());
	assert.throws(
		() => checkCapabilities(["file.base", "nope"]),
		(error) => hasCode(error, "unimplemented") && String(error).endsWith("unknown API capability nope"),
	);
});

test("createCapabilitySet: what a server has said, in the words of BuildKit's clients", () => {
	const set = createCapabilitySet(
		[
			{ id: "mergeop", enabled: true },
			{ id: "diffop", enabled: false, disabledReasonMessage: "not here" },
			{ id: "source.git", enabled: false },
			{ id: "from.the.future", enabled: true },
		],
		{ product: "buildkit" },
	);
	assert.ok(set.has("mergeop"));
	assert.ok(!set.has("diffop"));
	assert.ok(!set.has("file.base"));
	assert.ok(!set.has("from.the.future"));
	assert.ok(ownCapabilities.has("file.base"));
	assert.ok(!ownCapabilities.has("source.http.signatureverify"));
	set.require("mergeop");
	const messages = {
		diffop: "requested experimental feature diffop  has been disabled on the build server: not here",
		"source.git": "requested experimental feature source.git  has been disabled on the build server",
		"source.http":
			"requested experimental feature source.http  is not supported by build server, please update buildkit",
		"file.base":
			"requested prerelease feature file.base  is not supported by build server (added in BuildKit v0.5.0), please update buildkit",
		"exporter.sourcedateepoch":
			"requested experimental feature exporter.sourcedateepoch (source date epoch) is not supported by build server, please update buildkit",
		"from.the.future": "unknown API capability from.the.future",
	};
	for (const [id, message] of Object.entries(messages)) {
		assert.throws(() => set.require(id), { code: "unimplemented", message });
	}
});
