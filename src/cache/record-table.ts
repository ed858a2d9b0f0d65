import type { Database } from "../database/database.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { type Digest, isDigest, sha256 } from "../oci/digest.ts";
import type { SnapshotId, SnapshotUsage } from "../snapshot/snapshot.ts";
import type { RecordType, RefId } from "./cache.ts";
import { type CacheRecord, createRecord, layersOf } from "./record.ts";
import { decodeSharedFiles, encodeSharedFiles } from "./shared-files.ts";

/**
 * All records, in memory and in the metadata database. Reading is from memory; each change is written at once. A row is
 * deleted before the files that it names, and written after them, so that a killed process leaves files without a row,
 * which are swept, and never a row without files.
 */
const schema = `
CREATE TABLE IF NOT EXISTS cache_record (
	id TEXT PRIMARY KEY,
	kind TEXT NOT NULL,
	parents TEXT NOT NULL,
	mutable INTEGER NOT NULL,
	retain INTEGER NOT NULL,
	snapshot TEXT,
	portable TEXT,
	diff_id TEXT,
	twin TEXT,
	description TEXT NOT NULL,
	record_type TEXT NOT NULL,
	created_at REAL NOT NULL,
	last_used_at REAL,
	usage_count INTEGER NOT NULL,
	bytes INTEGER,
	inodes INTEGER,
	written_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cache_shared_files (
	record TEXT PRIMARY KEY,
	bytes INTEGER NOT NULL,
	files BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cache_layer_blob (
	position INTEGER PRIMARY KEY,
	record TEXT NOT NULL,
	digest TEXT NOT NULL,
	descriptor TEXT NOT NULL,
	UNIQUE (record, digest)
);
CREATE TABLE IF NOT EXISTS cache_metadata (
	record TEXT NOT NULL,
	key TEXT NOT NULL,
	value TEXT NOT NULL,
	PRIMARY KEY (record, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cache_index (
	value TEXT NOT NULL,
	record TEXT NOT NULL,
	PRIMARY KEY (value, record)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS cache_index_record ON cache_index (record);
CREATE TABLE IF NOT EXISTS cache_state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
`;

export class RecordTable {
	readonly #database: Database;
	readonly #records = new Map<RefId, CacheRecord>();
	readonly #byChain = new Map<Digest, CacheRecord>();
	readonly #blobOwners = new Map<Digest, Set<CacheRecord>>();

	constructor(database: Database) {
		this.#database = database;
		database.define(schema);
		this.#load();
	}

	all(): Iterable<CacheRecord> {
		return this.#records.values();
	}

	get(id: RefId): CacheRecord | undefined {
		return this.#records.get(id);
	}

	/** The record of an image's layers up to one, by the chain ID of the OCI image spec (config.md, Layer ChainID). */
	byChain(chainId: Digest): CacheRecord | undefined {
		return this.#byChain.get(chainId);
	}

	hasBlob(digest: Digest): boolean {
		return this.#blobOwners.has(digest);
	}

	/** Records that have the blob, oldest first. */
	blobOwners(digest: Digest): readonly CacheRecord[] {
		return [...(this.#blobOwners.get(digest) ?? [])];
	}

	add(record: CacheRecord): void {
		this.#database.transaction(() => {
			this.save(record);
			for (const descriptor of record.blobs.values()) {
				this.#writeBlob(record, descriptor);
			}
		});
		this.#attach(record);
	}

	/** Several changes in one write. */
	transaction<T>(work: () => T): T {
		return this.#database.transaction(work);
	}

	save(record: CacheRecord): void {
		this.#database.run(
			`INSERT OR REPLACE INTO cache_record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			record.id,
			record.kind,
			record.parents.map((parent) => parent?.id ?? "-").join(" "),
			record.mutable ? 1 : 0,
			record.retain ? 1 : 0,
			record.snapshot ?? null,
			record.portable ?? null,
			record.diffId ?? null,
			record.twin?.id ?? null,
			record.description,
			record.recordType,
			record.createdAt,
			record.lastUsedAt ?? null,
			record.usageCount,
			record.size?.bytes ?? null,
			record.size?.inodes ?? null,
			record.writtenAt,
		);
	}

	/** `shared` as in `TreesUsage`. */
	saveSize(record: CacheRecord, usage: SnapshotUsage, shared: Float64Array): void {
		const sharedBytes = shared.reduce((sum, value, at) => (at % 2 === 0 ? sum : sum + value), 0);
		record.size = { bytes: usage.bytes, inodes: usage.inodes, sharedBytes };
		this.transaction(() => {
			this.save(record);
			if (shared.length === 0) {
				this.#database.run("DELETE FROM cache_shared_files WHERE record = ?", record.id);
			} else {
				this.#database.run(
					"INSERT OR REPLACE INTO cache_shared_files VALUES (?, ?, ?)",
					record.id,
					sharedBytes,
					encodeSharedFiles(shared),
				);
			}
		});
	}

	/** Of a record whose size is known: files that others had a name of too when it was measured. */
	sharedFiles(record: CacheRecord): Float64Array {
		const row = this.#database.get("SELECT files FROM cache_shared_files WHERE record = ?", record.id);
		const files = row?.["files"];
		return files instanceof Uint8Array ? decodeSharedFiles(files) : new Float64Array();
	}

	addBlob(record: CacheRecord, descriptor: Descriptor): void {
		record.blobs.set(descriptor.digest, descriptor);
		this.#writeBlob(record, descriptor);
		this.#own(record, descriptor.digest);
	}

	/** Forgets a blob whose bytes turned out to be gone or wrong. */
	dropBlob(record: CacheRecord, digest: Digest): void {
		record.blobs.delete(digest);
		this.#database.run("DELETE FROM cache_layer_blob WHERE record = ? AND digest = ?", record.id, digest);
		this.#disown(record, digest);
	}

	setDiffId(record: CacheRecord, diffId: Digest): void {
		record.diffId = diffId;
		this.save(record);
		this.#learnChain(record);
	}

	/** Takes the records out of memory and database, children first. The caller then removes their files. */
	remove(records: readonly CacheRecord[]): void {
		this.#deleteRows(records.map(({ id }) => id));
		for (const record of records) {
			this.#detach(record);
		}
	}

	getMetadata(id: RefId, key: string): string | undefined {
		const row = this.#database.get("SELECT value FROM cache_metadata WHERE record = ? AND key = ?", id, key);
		return row === undefined ? undefined : String(row["value"]);
	}

	setMetadata(id: RefId, key: string, value: string | undefined): void {
		if (value === undefined) {
			this.#database.run("DELETE FROM cache_metadata WHERE record = ? AND key = ?", id, key);
		} else {
			this.#database.run("INSERT OR REPLACE INTO cache_metadata VALUES (?, ?, ?)", id, key, value);
		}
	}

	setIndex(id: RefId, value: string): void {
		this.#database.run("INSERT OR IGNORE INTO cache_index VALUES (?, ?)", value, id);
	}

	/** Newest first. */
	search(value: string): readonly RefId[] {
		return this.#database
			.all("SELECT record FROM cache_index WHERE value = ?", value)
			.flatMap((row) => this.#records.get(row["record"] as RefId) ?? [])
			.sort((a, b) => b.createdAt - a.createdAt)
			.map((record) => record.id);
	}

	getState(key: string): string | undefined {
		const row = this.#database.get("SELECT value FROM cache_state WHERE key = ?", key);
		return row === undefined ? undefined : String(row["value"]);
	}

	setState(key: string, value: string): void {
		this.#database.run("INSERT OR REPLACE INTO cache_state VALUES (?, ?)", key, value);
	}

	/** Rows whose parents are gone are left out, and deleted. */
	#load(): void {
		const rows = new Map(this.#rows<KeptRecord>("cache_record", keptColumns).map((row) => [row[0], row]));
		const made = new Map<string, CacheRecord | undefined>();
		const make = (id: string): CacheRecord | undefined => {
			if (made.has(id)) {
				return made.get(id);
			}
			made.set(id, undefined);
			const row = rows.get(id);
			if (row === undefined) {
				return undefined;
			}
			const names = row[2] === "" ? [] : row[2].split(" ");
			const parents = names.map((name) => (name === "-" ? undefined : make(name)));
			if (parents.some((parent, index) => parent === undefined && names[index] !== "-")) {
				return undefined;
			}
			const record = fromRow(row, parents);
			made.set(id, record);
			return record;
		};
		for (const id of rows.keys()) {
			make(id);
		}
		for (const [id, sharedBytes] of this.#rows<[string, number]>("cache_shared_files", "record, bytes")) {
			const record = made.get(id);
			if (record?.size !== undefined) {
				record.size = { ...record.size, sharedBytes };
			}
		}
		for (const [id, text] of this.#rows<[string, string]>(
			"cache_layer_blob",
			"record, descriptor",
			"position",
		)) {
			const descriptor = JSON.parse(text) as Descriptor;
			made.get(id)?.blobs.set(descriptor.digest, descriptor);
		}
		const lost: string[] = [];
		for (const [id, record] of made) {
			if (record === undefined) {
				lost.push(id);
				continue;
			}
			record.twin = made.get(rows.get(id)?.[8] ?? "");
			this.#attach(record);
		}
		if (lost.length > 0) {
			this.#deleteRows(lost);
		}
	}

	/** All rows in one JSON text: several times faster than a row at a time, and the start of the builder waits for it. */
	#rows<T>(table: string, columns: string, order?: string): readonly T[] {
		const sorted = order === undefined ? "" : ` ORDER BY ${order}`;
		const row = this.#database.get(
			`SELECT json_group_array(json_array(${columns})${sorted}) AS rows FROM ${table}`,
		);
		return JSON.parse(String(row?.["rows"] ?? "[]")) as readonly T[];
	}

	#deleteRows(ids: readonly string[]): void {
		this.#database.transaction(() => {
			for (const id of ids) {
				this.#database.run("DELETE FROM cache_record WHERE id = ?", id);
				this.#database.run("DELETE FROM cache_shared_files WHERE record = ?", id);
				this.#database.run("DELETE FROM cache_layer_blob WHERE record = ?", id);
				this.#database.run("DELETE FROM cache_metadata WHERE record = ?", id);
				this.#database.run("DELETE FROM cache_index WHERE record = ?", id);
			}
		});
	}

	#attach(record: CacheRecord): void {
		this.#records.set(record.id, record);
		for (const parent of record.parents) {
			parent?.children.add(record);
		}
		for (const digest of record.blobs.keys()) {
			this.#own(record, digest);
		}
		this.#learnChain(record);
	}

	#detach(record: CacheRecord): void {
		record.removed = true;
		this.#records.delete(record.id);
		for (const parent of record.parents) {
			parent?.children.delete(record);
		}
		for (const digest of record.blobs.keys()) {
			this.#disown(record, digest);
		}
		if (record.twin !== undefined) {
			record.twin.twin = undefined;
			record.twin = undefined;
		}
		if (record.chainId !== undefined && this.#byChain.get(record.chainId) === record) {
			this.#byChain.delete(record.chainId);
		}
	}

	#own(record: CacheRecord, digest: Digest): void {
		const owners = this.#blobOwners.get(digest) ?? new Set();
		owners.add(record);
		this.#blobOwners.set(digest, owners);
	}

	#disown(record: CacheRecord, digest: Digest): void {
		const owners = this.#blobOwners.get(digest);
		owners?.delete(record);
		if (owners?.size === 0) {
			this.#blobOwners.delete(digest);
		}
	}

	#writeBlob(record: CacheRecord, descriptor: Descriptor): void {
		this.#database.run(
			"INSERT INTO cache_layer_blob (record, digest, descriptor) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET descriptor = excluded.descriptor",
			record.id,
			descriptor.digest,
			JSON.stringify(descriptor),
		);
	}

	/** The chain ID of a layer, and of those above it that waited for it. */
	#learnChain(record: CacheRecord): void {
		if (
			record.kind !== "layer" ||
			record.mutable ||
			record.diffId === undefined ||
			record.chainId !== undefined
		) {
			return;
		}
		const [parent] = record.parents;
		const below =
			parent?.kind === "layer" ? parent.chainId : chainIdOf(layersOf(parent).map((layer) => layer.diffId));
		if (parent !== undefined && below === undefined) {
			return;
		}
		record.chainId = nextChainId(below, record.diffId);
		if (!this.#byChain.has(record.chainId)) {
			this.#byChain.set(record.chainId, record);
		}
		for (const child of record.children) {
			this.#learnChain(child);
		}
	}
}

export function nextChainId(below: Digest | undefined, diffId: Digest): Digest {
	return below === undefined ? diffId : sha256(`${below} ${diffId}`);
}

function chainIdOf(diffIds: readonly (Digest | undefined)[]): Digest | undefined {
	let chain: Digest | undefined;
	for (const diffId of diffIds) {
		if (diffId === undefined) {
			return undefined;
		}
		chain = nextChainId(chain, diffId);
	}
	return chain;
}

const keptColumns =
	"id, kind, parents, mutable, retain, snapshot, portable, diff_id, twin, description, record_type, created_at, " +
	"last_used_at, usage_count, bytes, inodes, written_at";

type KeptRecord = readonly [
	id: string,
	kind: CacheRecord["kind"],
	parents: string,
	mutable: number,
	retain: number,
	snapshot: string | null,
	portable: string | null,
	diffId: string | null,
	twin: string | null,
	description: string,
	recordType: RecordType,
	createdAt: number,
	lastUsedAt: number | null,
	usageCount: number,
	bytes: number | null,
	inodes: number | null,
	writtenAt: number,
];

function fromRow(row: KeptRecord, parents: CacheRecord["parents"]): CacheRecord {
	const [id, kind, , mutable, retain, snapshot, portable, diffId, , description, recordType, createdAt] = row;
	const [, , , , , , , , , , , , lastUsedAt, usageCount, bytes, inodes, writtenAt] = row;
	return createRecord({
		id: id as RefId,
		kind,
		parents,
		mutable: mutable === 1,
		retain: retain === 1,
		snapshot: (snapshot ?? undefined) as SnapshotId | undefined,
		portable: (portable ?? undefined) as SnapshotId | undefined,
		diffId: diffId !== null && isDigest(diffId) ? diffId : undefined,
		description,
		recordType,
		createdAt,
		lastUsedAt: lastUsedAt ?? undefined,
		usageCount,
		size: bytes === null ? undefined : { bytes, inodes: inodes ?? 0, sharedBytes: 0 },
		writtenAt,
	});
}
