import { SlipwayError } from "../errors/errors.ts";
import { encodeText } from "./byte-text.ts";

const nanosecondsOfUnit: ReadonlyMap<string, bigint> = new Map([
	["ns", 1n],
	["us", 1_000n],
	["\u00b5s", 1_000n],
	["\u03bcs", 1_000n],
	["ms", 1_000_000n],
	["s", 1_000_000_000n],
	["m", 60_000_000_000n],
	["h", 3_600_000_000_000n],
]);

const largest = 1n << 63n;

/**
 * Go's `time.ParseDuration`: `1h30m`, `1.5s`, `-3us`, `0`. The result is nanoseconds; a number is exact for every
 * whole millisecond in range. Throws `invalid-argument` with Go's text.
 */
export function parseGoDuration(text: string): number {
	const negative = text.startsWith("-");
	let rest = negative || text.startsWith("+") ? text.slice(1) : text;
	if (rest === "0") {
		return 0;
	}
	if (rest === "") {
		throw invalidDuration(text);
	}
	let total = 0n;
	while (rest !== "") {
		const match = /^([0-9]*)(\.[0-9]*)?([^.0-9]*)/.exec(rest);
		const [, whole = "", fraction = "", unit = ""] = match ?? [];
		if (whole === "" && fraction.length < 2) {
			throw invalidDuration(text);
		}
		const digits = BigInt(whole === "" ? 0 : whole.slice(0, 40));
		if (digits > largest || whole.length > 40) {
			throw invalidDuration(text);
		}
		if (unit === "") {
			throw durationError(`missing unit in duration ${quote(text)}`);
		}
		const scale = nanosecondsOfUnit.get(unit);
		if (scale === undefined) {
			throw durationError(`unknown unit ${quote(unit)} in duration ${quote(text)}`);
		}
		total += digits * scale + fractionOf(fraction, scale);
		if (total > largest) {
			throw invalidDuration(text);
		}
		rest = rest.slice(whole.length + fraction.length + unit.length);
	}
	if (!negative && total === largest) {
		throw invalidDuration(text);
	}
	return Number(negative ? -total : total);
}

/** Go's `Duration.String`: `1h0m0s`, `1.5s`, `2ms`, `0s`. */
export function formatGoDuration(nanoseconds: number): string {
	if (nanoseconds === 0) {
		return "0s";
	}
	const sign = nanoseconds < 0 ? "-" : "";
	const value = BigInt(Math.abs(nanoseconds));
	if (value < 1_000n) {
		return `${sign}${value}ns`;
	}
	if (value < 1_000_000n) {
		return `${sign}${decimal(value, 1_000n)}\u00b5s`;
	}
	if (value < 1_000_000_000n) {
		return `${sign}${decimal(value, 1_000_000n)}ms`;
	}
	const minute = 60_000_000_000n;
	const minutes = value / minute;
	const seconds = `${decimal(value % minute, 1_000_000_000n)}s`;
	if (minutes === 0n) {
		return `${sign}${seconds}`;
	}
	const hours = minutes / 60n;
	return hours === 0n ? `${sign}${minutes}m${seconds}` : `${sign}${hours}h${minutes % 60n}m${seconds}`;
}

function decimal(value: bigint, unit: bigint): string {
	const fraction = (value % unit)
		.toString()
		.padStart(unit.toString().length - 1, "0")
		.replace(/0+$/, "");
	return fraction === "" ? `${value / unit}` : `${value / unit}.${fraction}`;
}

/** Go computes the fraction in floating point, from at most the digits that fit 63 bits. */
function fractionOf(fraction: string, scale: bigint): bigint {
	let value = 0n;
	let divisor = 1;
	for (const digit of fraction.slice(1, 20)) {
		const next = value * 10n + BigInt(digit);
		if (value > (largest - 1n) / 10n || next > largest) {
			break;
		}
		value = next;
		divisor *= 10;
	}
	return BigInt(Math.trunc(Number(value) * (Number(scale) / divisor)));
}

function invalidDuration(text: string): SlipwayError {
	return durationError(`invalid duration ${quote(text)}`);
}

function durationError(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", `time: ${message}`);
}

/** The `time` package's own quoting: every byte outside printable ASCII as `\xNN`. */
function quote(text: string): string {
	let out = "";
	for (const byte of encodeText(text)) {
		const char = String.fromCharCode(byte);
		if (byte >= 0x80 || byte < 0x20) {
			out += `\\x${byte.toString(16).padStart(2, "0")}`;
		} else {
			out += char === '"' || char === "\\" ? `\\${char}` : char;
		}
	}
	return `"${out}"`;
}
