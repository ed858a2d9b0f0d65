import type { Database } from "../database/database.ts";
import type { Digest } from "../oci/digest.ts";

/**
 * Which repositories (`domain/path`) are known to have a blob. A manifest that is kept here answers for a pinned name only if
 * it came from that repository, since its layers are still to be fetched there by somebody who may; and a push can ask a
 * registry to mount a blob from another of its repositories.
 */
export interface BlobSources {
	add(digest: Digest, repository: string): void;
	has(digest: Digest, repository: string): boolean;
	/** Most recently added first. */
	repositories(digest: Digest): readonly string[];
	/** When the blob is removed. */
	forget(digest: Digest): void;
}

export function createBlobSources(database: Database): BlobSources {
	database.define(
		`CREATE TABLE IF NOT EXISTS blob_source (
			digest TEXT NOT NULL,
			repository TEXT NOT NULL,
			PRIMARY KEY (digest, repository)
		)`,
	);
	return {
		add: (digest, repository) =>
			database.run(
				"INSERT OR IGNORE INTO blob_source (digest, repository) VALUES (?, ?)",
				digest,
				repository,
			),
		has: (digest, repository) =>
			database.get("SELECT 1 FROM blob_source WHERE digest = ? AND repository = ?", digest, repository) !==
			undefined,
		repositories: (digest) =>
			database
				.all("SELECT repository FROM blob_source WHERE digest = ? ORDER BY rowid DESC", digest)
				.map((row) => String(row["repository"])),
		forget: (digest) => database.run("DELETE FROM blob_source WHERE digest = ?", digest),
	};
}
