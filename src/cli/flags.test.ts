import assert from "node:assert/strict";
import { test } from "node:test";
import { hasCode } from "../errors/errors.ts";
import { buildFlags } from "./build-flags.ts";
import { parseFlags } from "./flags.ts";

test("parseFlags: attestations may be declined, not asked for", () => {
	assert.deepEqual(parseFlags(["--provenance=false", "--sbom", "false", "."], buildFlags).args, ["."]);
	for (const word of ["--provenance", "--provenance=true", "--sbom=generator=x"]) {
		assert.throws(() => parseFlags([word, "."], buildFlags), /is not supported yet: attestations/);
	}
	assert.throws(
		() => parseFlags(["--squash=false", "."], buildFlags),
		(error) => hasCode(error, "unimplemented"),
	);
});
