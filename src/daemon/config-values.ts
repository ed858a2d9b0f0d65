import { SlipwayError } from "../errors/errors.ts";
import { parseGoDuration } from "../oci/go-duration.ts";

/** An amount of disk: bytes, or percents of the whole disk. */
export type DiskSpace =
	| { readonly kind: "bytes"; readonly bytes: number }
	| { readonly kind: "percent"; readonly percent: number };

/** `512MB`, `1.5g` (in powers of 1024), `10%`, or bytes. Throws `invalid-argument`. */
export function parseDiskSpace(text: string): DiskSpace {
	const percent = /^(\d+)%$/.exec(text)?.[1];
	if (percent !== undefined) {
		return { kind: "percent", percent: Number(percent) };
	}
	const [, amount, unit = ""] = /^(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?$/i.exec(text) ?? [];
	if (amount === undefined) {
		throw new SlipwayError("invalid-argument", `invalid disk space ${text}`);
	}
	const power = unit === "" ? 0 : "kmgtp".indexOf(unit.toLowerCase()) + 1;
	return { kind: "bytes", bytes: Math.floor(Number(amount) * 1024 ** power) };
}

/** Percents are rounded up to gigabytes, as BuildKit does. */
export function diskSpaceBytes(space: DiskSpace | undefined, diskBytes: number): number {
	if (space === undefined) {
		return 0;
	}
	if (space.kind === "bytes") {
		return space.bytes;
	}
	const gigabytes = Math.floor(Math.floor((diskBytes * space.percent) / 100) / 2 ** 30) + 1;
	return space.percent === 0 ? 0 : gigabytes * 1e9;
}

/** Go's durations, or whole seconds. Throws `invalid-argument`. */
export function parseDurationMs(text: string): number {
	if (/^-?\d+$/.test(text)) {
		return Number(text) * 1000;
	}
	try {
		return parseGoDuration(text) / 1e6;
	} catch (error) {
		throw new SlipwayError("invalid-argument", `invalid duration ${text}`, { cause: error });
	}
}
