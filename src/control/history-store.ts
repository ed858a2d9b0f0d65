import { BuildHistoryRecord, type Descriptor } from "../api/generated/control.ts";
import { millisecondsOf } from "../api/timestamps.ts";
import type { ContentStore } from "../content/content.ts";
import type { Database } from "../database/database.ts";
import { type Digest, isDigest } from "../oci/digest.ts";

/** Records of builds that ended, in the metadata database, and which blobs they keep. */
export interface HistoryStore {
	find(ref: string): BuildHistoryRecord | undefined;
	/** By ref, as BuildKit lists them. */
	list(): readonly BuildHistoryRecord[];
	/** Takes the place of an older record of this ref. `blobs` are kept besides those that the record names. */
	put(record: BuildHistoryRecord, blobs: readonly string[]): void;
	/** The blobs that no record keeps any longer. */
	delete(ref: string): readonly Digest[];
	/** Those that are to be deleted: beyond `maxEntries` and completed before `completedBefore`, pinned ones left out. */
	expired(options: { readonly maxEntries: number; readonly completedBefore: number }): readonly string[];
	/** Removes blobs without a record, and records without their log: what a killed builder left. */
	sweep(): Promise<void>;
}

const schema = `
CREATE TABLE IF NOT EXISTS history_record (
	ref TEXT PRIMARY KEY,
	record BLOB NOT NULL,
	completed REAL NOT NULL,
	pinned INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS history_blob (
	ref TEXT NOT NULL REFERENCES history_record(ref) ON DELETE CASCADE,
	digest TEXT NOT NULL,
	PRIMARY KEY (ref, digest)
);
CREATE INDEX IF NOT EXISTS history_blob_digest ON history_blob(digest);
`;

export function createHistoryStore(database: Database, blobs: ContentStore): HistoryStore {
	database.define(schema);

	const isKept = (digest: string): boolean =>
		database.get("SELECT 1 FROM history_blob WHERE digest = ? LIMIT 1", digest) !== undefined;

	function remove(ref: string): readonly Digest[] {
		const kept = database
			.all("SELECT digest FROM history_blob WHERE ref = ?", ref)
			.map((row) => String(row["digest"]));
		database.run("DELETE FROM history_record WHERE ref = ?", ref);
		return kept.filter(isDigest).filter((digest) => !isKept(digest));
	}

	function list(): readonly BuildHistoryRecord[] {
		return database
			.all("SELECT record FROM history_record ORDER BY ref")
			.flatMap(({ record }) => decode(record) ?? []);
	}

	return {
		list,
		find(ref) {
			return decode(database.get("SELECT record FROM history_record WHERE ref = ?", ref)?.["record"]);
		},
		put(record, others) {
			database.transaction(() => {
				database.run(
					`INSERT INTO history_record (ref, record, completed, pinned) VALUES (?, ?, ?, ?)
						ON CONFLICT(ref) DO UPDATE SET record = excluded.record, completed = excluded.completed, pinned = excluded.pinned`,
					record.Ref,
					BuildHistoryRecord.encode(record).finish(),
					millisecondsOf(record.CompletedAt) ?? 0,
					record.pinned ? 1 : 0,
				);
				for (const digest of [...blobsOf(record), ...others]) {
					database.run("INSERT OR IGNORE INTO history_blob (ref, digest) VALUES (?, ?)", record.Ref, digest);
				}
			});
		},
		delete: (ref) => database.transaction(() => remove(ref)),
		expired({ maxEntries, completedBefore }) {
			return database
				.all(
					"SELECT ref, completed FROM history_record WHERE pinned = 0 ORDER BY completed DESC LIMIT -1 OFFSET ?",
					maxEntries,
				)
				.filter(({ completed }) => Number(completed) < completedBefore)
				.map(({ ref }) => String(ref));
		},
		async sweep() {
			for (const { ref } of database.all("SELECT ref FROM history_record")) {
				const record = decode(
					database.get("SELECT record FROM history_record WHERE ref = ?", ref ?? "")?.["record"],
				);
				const log = record?.logs?.digest ?? "";
				if (record === undefined || (isDigest(log) && (await blobs.info(log)) === undefined)) {
					remove(String(ref));
				}
			}
			for await (const { digest } of blobs.list()) {
				if (!isKept(digest)) {
					await blobs.delete(digest);
				}
			}
		},
	};
}

function decode(bytes: unknown): BuildHistoryRecord | undefined {
	try {
		return bytes instanceof Uint8Array ? BuildHistoryRecord.decode(bytes) : undefined;
	} catch {
		return undefined;
	}
}

function blobsOf(record: BuildHistoryRecord): readonly string[] {
	const results = [record.Result, ...record.Results.values()];
	const descriptors: readonly (Descriptor | undefined)[] = [
		record.logs,
		record.trace,
		record.externalError,
		...results.flatMap((result) => [...(result?.Attestations ?? []), ...(result?.Results.values() ?? [])]),
	];
	return descriptors.flatMap((descriptor) => descriptor?.digest ?? []);
}
