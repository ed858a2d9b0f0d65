import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { readCertsDirectories } from "./certs-directory.ts";

test("certs.d: authorities and client certificates by host, of all directories", () => {
	const folder = mkdtempSync(join(tmpdir(), "slipway-certs-"));
	try {
		const put = (name: string, text: string): void => {
			mkdirSync(join(folder, name, ".."), { recursive: true });
			writeFileSync(join(folder, name), text);
		};
		put("one/a.example:5000/ca.crt", "first");
		put("one/a.example:5000/client.cert", "certificate");
		put("one/a.example:5000/client.key", "key");
		put("one/b.example/README", "nothing");
		put("two/a.example:5000/other.crt", "second");
		const directories = [join(folder, "one"), join(folder, "two"), join(folder, "none")];
		assert.deepEqual(readCertsDirectories(directories), {
			"a.example:5000": {
				ca: ["first", "second"],
				keyPairs: [{ certificate: "certificate", key: "key" }],
				http: false,
			},
		});
		rmSync(join(folder, "one/a.example:5000/client.key"));
		assert.throws(() => readCertsDirectories(directories), /could not read .*a\.example:5000\/client\.key/);
	} finally {
		rmSync(folder, { recursive: true });
	}
});
