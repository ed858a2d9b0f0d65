import { goJson } from "../oci/go-json.ts";
import { formatGoTime, parseGoTime } from "../oci/go-time.ts";
import type { HistoryEntry } from "../oci/image-config.ts";

/** What a layer's record says about it, for history entries that lack it. */
export interface LayerFacts {
	/** Milliseconds since 1970. */
	readonly createdAt: number;
	readonly description: string;
}

/**
 * The history of an image config as Go writes it again: only the keys of the OCI spec, empty ones left out, in its order of
 * keys. Times keep their zone, which `formatGoTime` would not.
 */
export function readHistory(
	history: readonly HistoryEntry[] | undefined,
): readonly HistoryEntry[] | undefined {
	return history?.map(({ created, created_by, author, comment, empty_layer }) => ({
		...(created === undefined ? {} : { created: goTimeText(created) }),
		...(created_by ? { created_by } : {}),
		...(author ? { author } : {}),
		...(comment ? { comment } : {}),
		...(empty_layer === true ? { empty_layer } : {}),
	}));
}

/** The text of a time after Go has read and written it. */
function goTimeText(text: string): string {
	const [, seconds = "", fraction = "", zone = ""] = /^(.{19})(?:\.(\d+))?(.+)$/.exec(text) ?? [];
	const digits = fraction.slice(0, 9).replace(/0+$/, "");
	return seconds + (digits === "" ? "" : `.${digits}`) + (/^[+-]00:00$/.test(zone) ? "Z" : zone);
}

/** Makes the entries fit the layers (BuildKit, normalizeLayersAndHistory): one entry that is not empty for each, and a time in all. */
export function normalizeHistory(
	history: readonly HistoryEntry[] | undefined,
	layers: readonly LayerFacts[],
): readonly HistoryEntry[] | undefined {
	let entries = history;
	const described = (entries ?? []).filter((entry) => entry.empty_layer !== true).length;
	if (described > layers.length) {
		entries = withoutSurplus(entries ?? [], layers.length);
	}
	if (described < layers.length) {
		const missing = layers.slice(described).map(({ createdAt, description }) => ({
			created: formatGoTime(createdAt),
			created_by: description === "" ? "created by buildkit" : description,
			comment: "buildkit.exporter.image.v0",
		}));
		entries = [...(entries ?? []), ...missing];
	}
	return entries === undefined ? undefined : withTimes(entries, layers);
}

/** Entries of layers that do not exist are declared empty, the uppermost first. */
function withoutSurplus(entries: readonly HistoryEntry[], layers: number): readonly HistoryEntry[] {
	let seen = 0;
	return entries.map((entry) => {
		if (entry.empty_layer !== true && seen < layers) {
			seen++;
			return entry;
		}
		return { ...entry, empty_layer: true };
	});
}

/**
 * Entries of layers get their layer's time. Those of commands get the time of the first layer that was made after them; the
 * last ones that of the layer before.
 */
function withTimes(entries: readonly HistoryEntry[], layers: readonly LayerFacts[]): readonly HistoryEntry[] {
	let layer = 0;
	const timed = entries.map((entry) => {
		if (entry.empty_layer === true) {
			return entry;
		}
		const facts = layers[layer++];
		return entry.created !== undefined || facts === undefined
			? entry
			: { ...entry, created: formatGoTime(facts.createdAt) };
	});
	const firstWithout = timed.findIndex((entry) => entry.created === undefined);
	const next = timed.find((entry, index) => index > firstWithout && entry.created !== undefined);
	const before = timed.slice(0, Math.max(firstWithout, 0)).findLast((entry) => entry.created !== undefined);
	let created = (next ?? before)?.created;
	let gap = false;
	return timed.map((entry) => {
		if (entry.created === undefined) {
			gap = true;
			return created === undefined ? entry : { ...entry, created };
		}
		if (gap) {
			created = entry.created;
		}
		return entry;
	});
}

/** No entry is younger than the epoch but those that the base image has at the same place. */
export function clampHistory(
	history: readonly HistoryEntry[],
	base: readonly HistoryEntry[] | undefined,
	epochSeconds: number,
): readonly HistoryEntry[] {
	const created = formatGoTime({ seconds: epochSeconds, nanos: 0 });
	let fromBase = true;
	return history.map((entry, index) => {
		const original = base?.[index];
		fromBase &&= original !== undefined && writeHistoryEntry(entry) === writeHistoryEntry(original);
		if (fromBase || (entry.created !== undefined && !isAfter(entry.created, epochSeconds))) {
			return entry;
		}
		return { ...entry, created };
	});
}

export function isAfter(time: string, epochSeconds: number): boolean {
	const { seconds, nanos } = parseGoTime(time);
	return seconds > epochSeconds || (seconds === epochSeconds && nanos > 0);
}

/** JSON in the order of keys of the OCI spec's Go type. */
export function writeHistoryEntry(entry: HistoryEntry): string {
	const { created, created_by, author, comment, empty_layer } = entry;
	return goJson({ created, created_by, author, comment, empty_layer });
}
