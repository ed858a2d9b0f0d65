import type { Database, Row } from "../database/database.ts";
import { SlipwayError } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { isDigest } from "../oci/digest.ts";

/**
 * Names of images that are kept here: what `-t` named, and what a later `FROM name` finds without a registry. Names are
 * full references with tag or digest, as `formatReference` writes them. An image in this store is a root of garbage
 * collection: everything that `imageClosure` finds from its descriptor stays.
 */
export interface ImageStore {
	get(name: string): StoredImage | undefined;
	/** Adds or replaces; a replaced image keeps its `createdAt`. */
	put(name: string, descriptor: Descriptor): StoredImage;
	/** False if there was none of this name. */
	delete(name: string): boolean;
	/** Sorted by name. */
	list(): readonly StoredImage[];
}

export interface StoredImage {
	readonly name: string;
	/** Of a manifest or an index. */
	readonly descriptor: Descriptor;
	/** Milliseconds since the epoch. */
	readonly createdAt: number;
	readonly updatedAt: number;
}

export function createImageStore(
	database: Database,
	options: { readonly now?: () => number } = {},
): ImageStore {
	const now = options.now ?? Date.now;
	database.define(
		`CREATE TABLE IF NOT EXISTS image (
			name TEXT PRIMARY KEY,
			descriptor TEXT NOT NULL,
			created_at INTEGER NOT NULL,
			updated_at INTEGER NOT NULL
		) WITHOUT ROWID`,
	);
	const get = (name: string): StoredImage | undefined => {
		const row = database.get("SELECT * FROM image WHERE name = ?", name);
		return row === undefined ? undefined : fromRow(row);
	};
	return {
		get,
		put: (name, descriptor) =>
			database.transaction(() => {
				const time = now();
				const createdAt = get(name)?.createdAt ?? time;
				database.run(
					"INSERT OR REPLACE INTO image (name, descriptor, created_at, updated_at) VALUES (?, ?, ?, ?)",
					name,
					JSON.stringify(descriptor),
					createdAt,
					time,
				);
				return { name, descriptor, createdAt, updatedAt: time };
			}),
		delete: (name) =>
			database.transaction(() => {
				const known = get(name) !== undefined;
				database.run("DELETE FROM image WHERE name = ?", name);
				return known;
			}),
		list: () => database.all("SELECT * FROM image ORDER BY name").map(fromRow),
	};
}

/** The database is ours, but a descriptor without a digest would make a root that holds nothing. */
function fromRow(row: Row): StoredImage {
	const descriptor = JSON.parse(String(row["descriptor"])) as Descriptor;
	if (!isDigest(descriptor.digest)) {
		throw new SlipwayError("data-loss", `image ${row["name"]} has an invalid descriptor in the database`);
	}
	return {
		name: String(row["name"]),
		descriptor,
		createdAt: Number(row["created_at"]),
		updatedAt: Number(row["updated_at"]),
	};
}
