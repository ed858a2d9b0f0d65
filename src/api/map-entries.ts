/**
 * The entries in the order in which Go's deterministic encoding writes them: by the UTF-8 bytes of the key. Generated
 * encoders call this, so that equal messages have equal bytes.
 */
export function sortedEntries<T>(map: ReadonlyMap<string, T>): (readonly [string, T])[] {
	return [...map].sort(([a], [b]) => compare(a, b));
}

const hasSurrogate = /[\ud800-\udfff]/;

function compare(a: string, b: string): number {
	// UTF-16 order differs from that of UTF-8 only above U+FFFF.
	if (hasSurrogate.test(a) || hasSurrogate.test(b)) {
		return Buffer.compare(Buffer.from(a), Buffer.from(b));
	}
	return a < b ? -1 : a > b ? 1 : 0;
}
