import type { Timestamp } from "./generated/google/protobuf/timestamp.ts";

/** From milliseconds since the epoch, with fractions, as progress records have them. */
export function timestampOf(milliseconds: number): Timestamp {
	const seconds = Math.floor(milliseconds / 1000);
	const nanos = Math.floor((milliseconds - seconds * 1000) * 1e6);
	return { seconds, nanos: Math.min(nanos, 999_999_999) };
}

/** To milliseconds since the epoch, with fractions; undefined for what the message does not have. */
export function millisecondsOf(timestamp: Timestamp): number;
export function millisecondsOf(timestamp: Timestamp | undefined): number | undefined;
export function millisecondsOf(timestamp: Timestamp | undefined): number | undefined {
	return timestamp && timestamp.seconds * 1000 + timestamp.nanos / 1e6;
}
