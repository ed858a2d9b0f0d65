/**
 * The entries in the order in which Go's deterministic encoding writes them: numbers by value, text by the UTF-8 bytes of the
 * key. Generated encoders call this, so that equal messages have equal bytes.
 */
export function sortedEntries<K extends string | number, T>(map: ReadonlyMap<K, T>): (readonly [K, T])[] {
	return [...map].sort(([a], [b]) =>
		typeof a === "string" && typeof b === "string" ? compare(a, b) : Number(a) - Number(b),
	);
}

const hasSurrogate = /[\ud800-\udfff]/;

function compare(a: string, b: string): number {
	// UTF-16 order differs from that of UTF-8 only above U+FFFF.
	if (hasSurrogate.test(a) || hasSurrogate.test(b)) {
		return Buffer.compare(Buffer.from(a), Buffer.from(b));
	}
	return a < b ? -1 : a > b ? 1 : 0;
}
