const hasSurrogate = /[\ud800-\udfff]/;

/** Order of the UTF-8 bytes, which is Go's order of strings; UTF-16 order differs above U+FFFF. */
export function compareUtf8(a: string, b: string): number {
	if (hasSurrogate.test(a) || hasSurrogate.test(b)) {
		return Buffer.compare(Buffer.from(a), Buffer.from(b));
	}
	return a < b ? -1 : a > b ? 1 : 0;
}

/** A sorted copy. */
export function sortUtf8(values: Iterable<string>): string[] {
	return [...values].sort(compareUtf8);
}
