import type { StatusRecord } from "./progress.ts";

/** `%.<digits>f` of Go: unlike `toFixed`, a value exactly between two texts goes to the one with an even last digit. */
export function fixed(value: number, digits: number): string {
	const text = value.toFixed(digits);
	// A tie has the form odd / 2^(digits + 1); no other binary fraction ends in a decimal 5 at that place.
	const doubled = Math.abs(value) * 2 ** (digits + 1);
	if (!Number.isInteger(doubled) || doubled % 2 === 0) {
		return text;
	}
	const below = Math.floor(Math.abs(value) * 10 ** digits);
	return below % 2 === 0 ? ((Math.sign(value) * below) / 10 ** digits).toFixed(digits) : text;
}

const units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"] as const;

/** `123B`, `1.23kB`: decimal units, two digits after the point from a thousand on. */
export function formatBytes(bytes: number): string {
	let unit = 0;
	let size = 1;
	while (Math.abs(bytes) >= size * 1000 && unit < units.length - 1) {
		size *= 1000;
		unit++;
	}
	return unit === 0 ? `${bytes}B` : `${fixed(bytes / size, 2)}${units[unit]}`;
}

/** `3.14MB / 9.42MB`, `3.14MB`, or nothing where nothing is counted. */
export function formatAmount({ current, total }: StatusRecord): string {
	if (total !== 0) {
		return `${formatBytes(current)} / ${formatBytes(total)}`;
	}
	return current === 0 ? "" : formatBytes(current);
}
