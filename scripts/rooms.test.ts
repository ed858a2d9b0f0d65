import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { checkRooms } from "./rooms.ts";

test("checkRooms names stray imports, unknown rooms and reaches into internal folders", () => {
	const src = mkdtempSync(join(tmpdir(), "slipway-rooms-"));
	try {
		for (const room of ["oci", "cache/internal", "solver", "junk"]) {
			mkdirSync(join(src, room), { recursive: true });
		}
		writeFileSync(join(src, "oci/a.ts"), 'import type { B } from "../cache/b.ts";\n');
		writeFileSync(
			join(src, "cache/b.ts"),
			'import { a } from "../oci/a.ts";\nexport * from "../solver/s.ts";\n',
		);
		writeFileSync(join(src, "solver/s.ts"), 'const x = await import("../cache/internal/i.ts");\n');
		assert.deepEqual([...checkRooms(src)].sort(), [
			"oci/a.ts: oci may not import cache",
			"solver/s.ts: solver may not import cache",
			"src/junk is not a room",
		]);
	} finally {
		rmSync(src, { recursive: true });
	}
});
