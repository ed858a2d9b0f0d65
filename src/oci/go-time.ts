import { SlipwayError } from "../errors/errors.ts";

/** A moment with the resolution of Go's time: nanoseconds since the epoch in two parts, `nanos` from 0 to 999,999,999. */
export interface GoTime {
	readonly seconds: number;
	readonly nanos: number;
}

/**
 * RFC 3339 in UTC with up to nine digits and no trailing zeros (`2006-01-02T15:04:05.999999999Z07:00` in Go's
 * notation). Milliseconds with a fraction are taken to the microsecond: today's date in a double has no more.
 */
export function formatGoTime(time: number | GoTime): string {
	const { seconds, nanos } = typeof time === "number" ? goTimeFromMs(time) : time;
	const date = new Date(seconds * 1000);
	if (Number.isNaN(date.getTime()) || date.getUTCFullYear() < 0 || date.getUTCFullYear() > 9999) {
		throw new SlipwayError("out-of-range", `time ${seconds}.${nanos} has a year outside of [0,9999]`);
	}
	const fraction = nanos === 0 ? "" : `.${String(nanos).padStart(9, "0").replace(/0+$/, "")}`;
	return `${date.toISOString().slice(0, 19)}${fraction}Z`;
}

const pattern = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$/;

/** Reads RFC 3339, strictly (Go also lets a comma and odd zones pass). Digits past the ninth are dropped. Throws `invalid-argument`. */
export function parseGoTime(text: string): GoTime {
	const parts = pattern.exec(text);
	const [, year = "", month = "", day = "", hour = "", minute = "", second = "", fraction = "", zone = ""] =
		parts ?? [];
	const days = new Date(`${year}-${month}-01T00:00:00Z`);
	days.setUTCMonth(days.getUTCMonth() + 1, 0);
	const local = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
	const offset = zoneOffsetMinutes(zone);
	const inMonth = Number(day) >= 1 && Number(day) <= days.getUTCDate();
	if (parts === null || Number.isNaN(local) || !inMonth || Number(hour) > 23 || offset === undefined) {
		throw new SlipwayError("invalid-argument", `invalid RFC 3339 time ${JSON.stringify(text)}`);
	}
	return {
		seconds: local / 1000 - offset * 60,
		nanos: Number(fraction.slice(0, 9).padEnd(9, "0")),
	};
}

function zoneOffsetMinutes(zone: string): number | undefined {
	if (zone === "Z") {
		return 0;
	}
	const hours = Number(zone.slice(1, 3));
	const minutes = Number(zone.slice(4, 6));
	if (hours > 23 || minutes > 59) {
		return undefined;
	}
	return (zone.startsWith("-") ? -1 : 1) * (hours * 60 + minutes);
}

/** Milliseconds since the epoch with a fraction, the unit of progress records. */
export function goTimeToMs({ seconds, nanos }: GoTime): number {
	return seconds * 1000 + nanos / 1e6;
}

export function goTimeFromMs(ms: number): GoTime {
	const micros = Math.round((ms - Math.floor(ms)) * 1000);
	const wholeMs = Math.floor(ms) + (micros === 1000 ? 1 : 0);
	const seconds = Math.floor(wholeMs / 1000);
	return { seconds, nanos: (wholeMs - seconds * 1000) * 1_000_000 + (micros === 1000 ? 0 : micros * 1000) };
}
