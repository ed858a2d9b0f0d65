import { randomBytes } from "node:crypto";

/** An id as BuildKit makes them for builds, sessions, records and refs: 25 random characters of base 36. */
export function newIdentity(): string {
	return randomBase36(25);
}

export function randomBase36(length: number): string {
	const number = BigInt(`0x${randomBytes(length).toString("hex")}`);
	return number.toString(36).padStart(length, "0").slice(-length);
}
