import { SlipwayError, wrap } from "../errors/errors.ts";

/**
 * One table of a configuration file. Each key that is asked for is read; `end` refuses those that nobody asked for, so that a typing
 * error is not a setting that has no effect. All errors name the file and the key.
 */
export class TomlTable {
	readonly #file: string;
	readonly #path: string;
	readonly #values: Readonly<Record<string, unknown>>;
	readonly #read = new Set<string>();
	readonly #children = new Map<string, TomlTable>();

	constructor(file: string, path: string, values: Readonly<Record<string, unknown>>) {
		this.#file = file;
		this.#path = path;
		this.#values = values;
	}

	get keys(): readonly string[] {
		return Object.keys(this.#values);
	}

	string(key: string): string | undefined {
		return this.#typed(key, "a string", (value) => (typeof value === "string" ? value : undefined));
	}

	boolean(key: string): boolean | undefined {
		return this.#typed(key, "true or false", (value) => (typeof value === "boolean" ? value : undefined));
	}

	integer(key: string): number | undefined {
		return this.#typed(key, "an integer", (value) =>
			typeof value === "number" && Number.isSafeInteger(value) ? value : undefined,
		);
	}

	strings(key: string): readonly string[] | undefined {
		return this.#typed(key, "a list of strings", (value) =>
			Array.isArray(value) && value.every((each): each is string => typeof each === "string")
				? value
				: undefined,
		);
	}

	/** A string, or an integer as its text. */
	text(key: string): string | undefined {
		return this.#typed(key, "a string or an integer", (value) =>
			typeof value === "string" ? value : Number.isSafeInteger(value) ? String(value) : undefined,
		);
	}

	/** The value of `text` as `parse` understands it. */
	parsed<T>(key: string, parse: (text: string) => T): T | undefined {
		const text = this.text(key);
		if (text === undefined || text === "") {
			return undefined;
		}
		try {
			return parse(text);
		} catch (error) {
			throw wrap(error, this.#place(key));
		}
	}

	stringMap(key: string): Readonly<Record<string, string>> | undefined {
		return this.#typed(key, "a table of strings", (value) =>
			isTable(value) && Object.values(value).every((each) => typeof each === "string")
				? (value as Record<string, string>)
				: undefined,
		);
	}

	/** Empty if it is not there. */
	table(key: string): TomlTable {
		const values = this.#typed(key, "a table", (value) => (isTable(value) ? value : undefined));
		return this.#child(key, values ?? {});
	}

	tables(key: string): readonly TomlTable[] {
		const list = this.#typed(key, "a list of tables", (value) =>
			Array.isArray(value) && value.every(isTable) ? value : undefined,
		);
		return (list ?? []).map((values, index) => this.#child(`${key}[${index}]`, values));
	}

	/** A setting of BuildKit that this builder does not have: setting it to what changes something is an error. */
	refuse(key: string, reason: string): void {
		const value = this.#values[key];
		this.#read.add(key);
		const isUnset =
			value === undefined ||
			value === false ||
			value === "" ||
			value === 0 ||
			(Array.isArray(value) && value.length === 0) ||
			(isTable(value) && Object.keys(value).length === 0);
		if (!isUnset) {
			throw this.error(key, `is not supported: ${reason}`);
		}
	}

	/** Settings that have no meaning here, whatever they are. */
	ignore(...keys: readonly string[]): void {
		for (const key of keys) {
			this.#read.add(key);
		}
	}

	error(key: string, message: string): SlipwayError {
		return new SlipwayError("invalid-argument", `${this.#place(key)} ${message}`);
	}

	/** Throws for a key that was not asked for, here and below. */
	end(): void {
		const unknown = this.keys.find((key) => !this.#read.has(key));
		if (unknown !== undefined) {
			throw this.error(unknown, "is not a known setting");
		}
		for (const child of this.#children.values()) {
			child.end();
		}
	}

	#typed<T>(key: string, wanted: string, read: (value: unknown) => T | undefined): T | undefined {
		this.#read.add(key);
		const value = Object.hasOwn(this.#values, key) ? this.#values[key] : undefined;
		if (value === undefined) {
			return undefined;
		}
		const typed = read(value);
		if (typed === undefined) {
			throw this.error(key, `must be ${wanted}`);
		}
		return typed;
	}

	#child(key: string, values: Readonly<Record<string, unknown>>): TomlTable {
		const child = this.#children.get(key) ?? new TomlTable(this.#file, this.#name(key), values);
		this.#children.set(key, child);
		return child;
	}

	#place(key: string): string {
		return `${this.#file}: ${this.#name(key)}`;
	}

	#name(key: string): string {
		const name = /^[\w[\]-]+$/.test(key) ? key : JSON.stringify(key);
		return this.#path === "" ? name : `${this.#path}.${name}`;
	}
}

function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
	return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}
