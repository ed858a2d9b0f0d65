import { formatGoDuration } from "../../oci/go-duration.ts";

/** Values of Go's that templates see, which print otherwise than JavaScript's. Lists, maps, texts, numbers are what they are. */
export type GoValue = unknown;

export interface GoField {
	readonly name: string;
	readonly json: string;
	readonly value: GoValue;
	/** Not in JSON if it is empty or zero. */
	readonly omitEmpty?: boolean;
}

/** A struct: fields by Go's name, and by the name that JSON has. In Go's order. */
export class GoStruct {
	readonly fields: readonly GoField[];
	/** How Go prints it, if not field by field. */
	readonly text: string | undefined;
	/** Go's JSON without the programmer's saying otherwise: `<`, `>` and `&` as escapes. */
	readonly escapesHtml: boolean;

	constructor(
		fields: readonly GoField[],
		{ text, escapesHtml = false }: { readonly text?: string; readonly escapesHtml?: boolean } = {},
	) {
		this.fields = fields;
		this.text = text;
		this.escapesHtml = escapesHtml;
	}
}

/** A slice or map that is nil: null as JSON, empty as text. */
export class GoNil {
	readonly text: string;

	constructor(text: "[]" | "map[]") {
		this.text = text;
	}
}

/** A number that has a name as text. */
export class GoEnum {
	readonly number: number;
	readonly name: string;

	constructor(number: number, name: string) {
		this.number = number;
		this.name = name;
	}
}

/** A `time.Duration`, which is a number of nanoseconds as JSON. */
export class GoDuration {
	readonly nanoseconds: number;

	constructor(nanoseconds: number) {
		this.nanoseconds = nanoseconds;
	}
}

/** A point of time, in milliseconds since the epoch with fractions. */
export class GoTime {
	readonly milliseconds: number;

	constructor(milliseconds: number) {
		this.milliseconds = milliseconds;
	}

	/** As Go prints a `time.Time`. */
	toString(): string {
		const { date, time, fraction } = this.#parts();
		return `${date} ${time}${fraction} +0000 UTC`;
	}

	/** RFC 3339 with as many digits as there are. */
	toJSON(): string {
		const { date, time, fraction } = this.#parts();
		return `${date}T${time}${fraction}Z`;
	}

	#parts(): { readonly date: string; readonly time: string; readonly fraction: string } {
		const seconds = Math.floor(this.milliseconds / 1000);
		const nanoseconds = Math.round((this.milliseconds - seconds * 1000) * 1e6);
		const [date = "", rest = ""] = new Date(seconds * 1000).toISOString().split("T");
		const digits = String(nanoseconds).padStart(9, "0").replace(/0+$/, "");
		return { date, time: rest.slice(0, 8), fraction: digits === "" ? "" : `.${digits}` };
	}
}

/** Go's `%v`. */
export function goText(value: GoValue): string {
	if (value === undefined || value === null) {
		return "<nil>";
	}
	if (Array.isArray(value)) {
		return `[${value.map(goText).join(" ")}]`;
	}
	if (value instanceof GoStruct) {
		return value.text ?? `{${value.fields.map((field) => goText(field.value)).join(" ")}}`;
	}
	if (value instanceof GoNil) {
		return value.text;
	}
	if (value instanceof GoEnum) {
		return value.name;
	}
	if (value instanceof GoDuration) {
		return formatGoDuration(value.nanoseconds);
	}
	if (typeof value === "object" && !(value instanceof GoTime)) {
		return `map[${sortedEntries(value)
			.map(([key, each]) => `${key}:${goText(each)}`)
			.join(" ")}]`;
	}
	return String(value);
}

/** As `encoding/json` writes it: keys of maps sorted. */
export function goJson(value: GoValue): string {
	const escaped = value instanceof GoStruct && value.escapesHtml ? /[<>&\u2028\u2029]/g : /[\u2028\u2029]/g;
	return JSON.stringify(jsonValue(value)).replace(
		escaped,
		(char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
	);
}

function isEmpty(value: GoValue): boolean {
	if (value instanceof GoStruct || value instanceof GoTime) {
		return false;
	}
	if (value instanceof GoEnum) {
		return value.number === 0;
	}
	return typeof value === "object" && value !== null ? Object.keys(value).length === 0 : !value;
}

function jsonValue(value: GoValue): unknown {
	if (Array.isArray(value)) {
		return value.map(jsonValue);
	}
	if (value instanceof GoStruct) {
		const shown = value.fields.filter((field) => field.omitEmpty !== true || !isEmpty(field.value));
		return Object.fromEntries(shown.map((field) => [field.json, jsonValue(field.value)]));
	}
	if (value === undefined || value instanceof GoNil) {
		return null;
	}
	if (value instanceof GoEnum) {
		return value.number;
	}
	if (value instanceof GoDuration) {
		return value.nanoseconds;
	}
	if (typeof value === "object" && value !== null && !(value instanceof GoTime)) {
		return Object.fromEntries(sortedEntries(value).map(([key, each]) => [key, jsonValue(each)]));
	}
	return value;
}

export function sortedEntries(map: object): readonly (readonly [key: string, value: GoValue])[] {
	return Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1));
}
