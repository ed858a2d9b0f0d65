import assert from "node:assert/strict";
import { after, it } from "node:test";
import { type Database, openDatabase } from "../database/database.ts";
import { sha256 } from "../oci/digest.ts";
import { keyStoreSuite } from "../solver/key-store.suite.ts";
import { createDatabaseKeyStore } from "./key-store.ts";

const open: Database[] = [];

function openMemory(): Database {
	const database = openDatabase(":memory:");
	open.push(database);
	return database;
}

after(() => {
	for (const database of open) {
		database[Symbol.dispose]();
	}
});

keyStoreSuite("database", () => createDatabaseKeyStore(openMemory()));

it("database: removeGone forgets results that are gone", () => {
	const store = createDatabaseKeyStore(openMemory());
	const link = { input: 0, output: 0, digest: sha256("op") };
	store.addLink("root", link, "a");
	store.addLink("root", link, "b");
	store.addResult("a", { id: "gone", createdAt: 1 });
	store.addResult("b", { id: "there", createdAt: 1 });
	assert.equal(
		store.removeGone((id) => id === "there"),
		1,
	);
	assert.deepEqual(store.targets("root", link), ["b"]);
});
