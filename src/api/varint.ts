/** Bytes of a number below 2 ** 53 as a varint. */
export function varintBytes(value: number): number {
	let bytes = 1;
	while (value >= 0x80) {
		value = Math.floor(value / 0x80);
		bytes++;
	}
	return bytes;
}

/** Gives the position after it. */
export function writeVarint(target: Uint8Array, at: number, value: number): number {
	while (value >= 0x80) {
		target[at++] = (value % 0x80) | 0x80;
		value = Math.floor(value / 0x80);
	}
	target[at++] = value;
	return at;
}
