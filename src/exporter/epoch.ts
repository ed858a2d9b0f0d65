import { quoteGo } from "../oci/go-quote.ts";
import { parseGoInt } from "./go-values.ts";

/**
 * SOURCE_DATE_EPOCH for an export: as an option, or from the frontend, for all platforms or for one. An option that is empty
 * means none, whatever the frontend says; hence the object around the number.
 */
export interface Epoch {
	/** Since 1970. */
	readonly seconds: number | undefined;
}

const key = "source.date.epoch";

export function parseEpochOption(value: string): Epoch {
	return { seconds: parseSeconds("source-date-epoch", value) };
}

/** What the frontend's metadata says, for one platform if `platformId` is given; undefined if nothing. */
export function epochOfMetadata(
	metadata: Readonly<Record<string, string>>,
	platformId?: string,
): number | undefined {
	const value = (platformId === undefined ? undefined : metadata[`${key}/${platformId}`]) ?? metadata[key];
	if (value === undefined) {
		return undefined;
	}
	return parseSeconds("", value, `invalid SOURCE_DATE_EPOCH from frontend: ${quoteGo(value)}: `);
}

function parseSeconds(name: string, value: string, prefix = ""): number | undefined {
	// Go's message holds the cause twice.
	return value === ""
		? undefined
		: parseGoInt(value, (problem) => `${prefix}invalid ${name}: ${problem}: ${problem}`);
}
