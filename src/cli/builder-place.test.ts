import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { builderIdentity } from "./builder-place.ts";

test("builderIdentity: another configuration of the machine is another builder", () => {
	const dir = mkdtempSync(join(tmpdir(), "slipway-place-"));
	try {
		const configFile = join(dir, "buildkitd.toml");
		const identity = (): string =>
			JSON.stringify(builderIdentity({ program: import.meta.filename, env: {}, engine: [], configFile }));
		const without = identity();
		assert.equal(identity(), without);
		writeFileSync(configFile, "debug = true\n");
		const first = identity();
		assert.notEqual(first, without);
		assert.equal(identity(), first);
		writeFileSync(configFile, "debug = false\n");
		assert.notEqual(identity(), first);
	} finally {
		rmSync(dir, { recursive: true });
	}
});
