import type { Database, Row } from "../database/database.ts";
import { type Digest, isDigest } from "../oci/digest.ts";
import type { KeyLink, KeyStore, ResultRecord } from "../solver/solver.ts";

/** Rows have a number of their own because what was added is given back in the order of adding. */
const schema = `
CREATE TABLE IF NOT EXISTS solver_link (
	number INTEGER PRIMARY KEY,
	source TEXT NOT NULL,
	digest TEXT NOT NULL,
	input INTEGER NOT NULL,
	output INTEGER NOT NULL,
	selector TEXT NOT NULL,
	target TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS solver_link_source
	ON solver_link (source, digest, input, output, selector, target);
CREATE INDEX IF NOT EXISTS solver_link_target ON solver_link (target);
CREATE TABLE IF NOT EXISTS solver_result (
	number INTEGER PRIMARY KEY,
	key TEXT NOT NULL,
	id TEXT NOT NULL,
	created_at REAL NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS solver_result_key ON solver_result (key, id);
CREATE INDEX IF NOT EXISTS solver_result_id ON solver_result (id);
`;

export interface DatabaseKeyStore extends KeyStore {
	/** Forgets results that are gone; for after a garbage collection. Gives their number. */
	removeGone(exists: (resultId: string) => boolean): number;
}

/** The graph of cache keys in the metadata database. A call takes some 10 µs. */
export function createDatabaseKeyStore(database: Database): DatabaseKeyStore {
	database.define(schema);
	const some = (sql: string, ...values: readonly string[]): boolean =>
		database.get(sql, ...values) !== undefined;

	/** Keys without a result that lead nowhere, and those that led only to them. */
	const removeDeadEnds = (keys: readonly string[]): void => {
		const pending = [...keys];
		for (let key = pending.pop(); key !== undefined; key = pending.pop()) {
			if (
				some("SELECT 1 FROM solver_result WHERE key = ? LIMIT 1", key) ||
				some("SELECT 1 FROM solver_link WHERE source = ? LIMIT 1", key)
			) {
				continue;
			}
			for (const row of database.all("SELECT DISTINCT source FROM solver_link WHERE target = ?", key)) {
				pending.push(String(row["source"]));
			}
			database.run("DELETE FROM solver_link WHERE target = ?", key);
		}
	};
	const removeResult = (resultId: string): void =>
		database.transaction(() => {
			const keys = database
				.all("SELECT key FROM solver_result WHERE id = ?", resultId)
				.map((row) => String(row["key"]));
			database.run("DELETE FROM solver_result WHERE id = ?", resultId);
			removeDeadEnds(keys);
		});

	return {
		targets: (from, link) =>
			database
				.all(
					`SELECT target FROM solver_link
					WHERE source = ? AND digest = ? AND input = ? AND output = ? AND selector = ? ORDER BY number`,
					from,
					...linkValues(link),
				)
				.map((row) => String(row["target"])),
		results: (key) =>
			database
				.all(
					"SELECT id, created_at FROM solver_result WHERE key = ? ORDER BY created_at DESC, number DESC",
					key,
				)
				.map((row): ResultRecord => ({ id: String(row["id"]), createdAt: Number(row["created_at"]) })),
		hasKey: (key) =>
			some("SELECT 1 FROM solver_link WHERE source = ? LIMIT 1", key) ||
			some("SELECT 1 FROM solver_link WHERE target = ? LIMIT 1", key) ||
			some("SELECT 1 FROM solver_result WHERE key = ? LIMIT 1", key),
		backlinks: (key) =>
			database
				.all("SELECT * FROM solver_link WHERE target = ? ORDER BY number", key)
				.map((row) => ({ from: String(row["source"]), link: toLink(row) })),
		addLink: (from, link, to) =>
			database.run(
				`INSERT OR IGNORE INTO solver_link (source, digest, input, output, selector, target)
				VALUES (?, ?, ?, ?, ?, ?)`,
				from,
				...linkValues(link),
				to,
			),
		addResult: (key, { id, createdAt }) =>
			database.run(
				"INSERT OR REPLACE INTO solver_result (key, id, created_at) VALUES (?, ?, ?)",
				key,
				id,
				createdAt,
			),
		removeResult,
		removeGone: (exists) =>
			database.transaction(() => {
				const gone = database
					.all("SELECT DISTINCT id FROM solver_result")
					.map((row) => String(row["id"]))
					.filter((id) => !exists(id));
				for (const id of gone) {
					removeResult(id);
				}
				return gone.length;
			}),
	};
}

function linkValues({ digest, input, output, selector }: KeyLink): [string, number, number, string] {
	return [digest, input, output, selector ?? ""];
}

function toLink(row: Row): KeyLink {
	const selector = String(row["selector"]);
	return {
		input: Number(row["input"]),
		output: Number(row["output"]),
		digest: String(row["digest"]),
		...(isDigest(selector) ? { selector: selector as Digest } : {}),
	};
}

/** All of the graph, for who looks into it: keys that nothing leads to, and every link. */
export function readKeyGraph(database: Database): {
	readonly roots: readonly string[];
	readonly links: readonly { readonly from: string; readonly link: KeyLink; readonly to: string }[];
} {
	database.define(schema);
	const roots = database.all(
		`SELECT key FROM (SELECT source AS key FROM solver_link UNION SELECT key FROM solver_result)
		WHERE key NOT IN (SELECT target FROM solver_link) ORDER BY key`,
	);
	const links = database.all("SELECT * FROM solver_link ORDER BY number");
	return {
		roots: roots.map((row) => String(row["key"])),
		links: links.map((row) => ({
			from: String(row["source"]),
			link: toLink(row),
			to: String(row["target"]),
		})),
	};
}
