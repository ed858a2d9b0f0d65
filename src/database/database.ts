import { DatabaseSync, type SQLInputValue, type SQLOutputValue, type StatementSync } from "node:sqlite";
import { type ErrorCode, toError, wrap } from "../errors/errors.ts";

/**
 * The metadata database of a state directory: SQLite in one file, used by one process at a time (whoever opens it holds the
 * state directory's lock). Each room owns its tables and creates them with `define`. Writes are in the operating system's
 * hands when a call returns: a killed process loses nothing that was written; after a power failure the last
 * moments may be missing, never half there (write-ahead log, `synchronous=NORMAL`).
 */
export interface Database extends Disposable {
	/** Creates the room's tables and indexes if they are not there: `CREATE … IF NOT EXISTS` statements. */
	define(schema: string): void;
	run(sql: string, ...values: readonly SQLInputValue[]): void;
	get(sql: string, ...values: readonly SQLInputValue[]): Row | undefined;
	all(sql: string, ...values: readonly SQLInputValue[]): readonly Row[];
	/** All or nothing; nested calls join the outer one. */
	transaction<T>(work: () => T): T;
}

export type Row = Readonly<Record<string, SQLOutputValue>>;

export interface OpenDatabaseOptions {
	/** Nobody else can open the file until this one is closed, or its process has ended. Default false. */
	readonly exclusive?: boolean;
}

/** `file` may be `:memory:`. Throws `failed-precondition` when another process holds it exclusively. */
export function openDatabase(file: string, options: OpenDatabaseOptions = {}): Database {
	return new SqliteDatabase(file, options.exclusive ?? false);
}

class SqliteDatabase implements Database {
	readonly #file: string;
	readonly #db: DatabaseSync;
	readonly #statements = new Map<string, StatementSync>();
	#depth = 0;

	constructor(file: string, exclusive: boolean) {
		this.#file = file;
		this.#db = this.#attempt(() => new DatabaseSync(file));
		try {
			this.#attempt(() => {
				this.#db.exec(
					`PRAGMA locking_mode=${exclusive ? "EXCLUSIVE" : "NORMAL"}; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON`,
				);
				if (exclusive) {
					// The lock is taken by the first write and then kept.
					this.#db.exec("BEGIN EXCLUSIVE; COMMIT");
				}
			});
		} catch (error) {
			this.#db.close();
			throw error;
		}
	}

	define(schema: string): void {
		this.#attempt(() => this.#db.exec(schema));
	}

	run(sql: string, ...values: readonly SQLInputValue[]): void {
		this.#attempt(() => this.#prepare(sql).run(...values));
	}

	get(sql: string, ...values: readonly SQLInputValue[]): Row | undefined {
		return this.#attempt(() => this.#prepare(sql).get(...values));
	}

	all(sql: string, ...values: readonly SQLInputValue[]): readonly Row[] {
		return this.#attempt(() => this.#prepare(sql).all(...values));
	}

	transaction<T>(work: () => T): T {
		if (this.#depth > 0) {
			return work();
		}
		this.run("BEGIN IMMEDIATE");
		this.#depth++;
		try {
			const result = work();
			this.run("COMMIT");
			return result;
		} catch (error) {
			// SQLite rolls back by itself on errors such as a full disk; a second ROLLBACK then fails and means nothing.
			try {
				this.#db.exec("ROLLBACK");
			} catch {}
			throw toError(error);
		} finally {
			this.#depth--;
		}
	}

	[Symbol.dispose](): void {
		this.#statements.clear();
		this.#db.close();
	}

	#prepare(sql: string): StatementSync {
		const known = this.#statements.get(sql);
		if (known !== undefined) {
			return known;
		}
		const statement = this.#db.prepare(sql);
		this.#statements.set(sql, statement);
		return statement;
	}

	/** SQLite's messages name neither the file nor what to do about a full disk. */
	#attempt<T>(work: () => T): T {
		try {
			return work();
		} catch (error) {
			const code = error instanceof Error ? codeOf(error.message) : undefined;
			throw wrap(error, `metadata database ${this.#file}`, code === undefined ? {} : { code });
		}
	}
}

function codeOf(message: string): ErrorCode | undefined {
	if (/disk is full|disk I\/O/.test(message)) {
		return "resource-exhausted";
	}
	return message.includes("database is locked") ? "failed-precondition" : undefined;
}
