import { randomBytes } from "node:crypto";

/** An id as BuildKit makes them for builds, sessions, records and refs: 25 random characters of base 36. */
export function newIdentity(): string {
	return randomBase36(25);
}

export function randomBase36(length: number): string {
	if (used + length > pool.length) {
		pool = randomBytes(poolBytes);
		used = 0;
	}
	const number = BigInt(`0x${pool.toString("hex", used, used + length)}`);
	used += length;
	return number.toString(36).padStart(length, "0").slice(-length);
}

/** Asking for each costs more than the rest of it. */
const poolBytes = 4096;
let pool: Buffer = Buffer.alloc(0);
let used = 0;
