/** A time in which a vertex ran, in milliseconds; without `stop` it still runs. */
export interface Interval {
	readonly start: number;
	readonly stop: number | undefined;
}

/**
 * The same times with overlapping intervals joined, by start. One that still runs takes in all that start later.
 */
export function mergeIntervals(intervals: Iterable<Interval>): readonly Interval[] {
	const merged: Interval[] = [];
	for (const next of [...intervals].sort((a, b) => a.start - b.start)) {
		const last = merged.at(-1);
		if (last === undefined || (last.stop !== undefined && last.stop < next.start)) {
			merged.push(next);
		} else if (last.stop !== undefined && (next.stop === undefined || next.stop > last.stop)) {
			merged[merged.length - 1] = { start: last.start, stop: next.stop };
		}
	}
	return merged;
}

/** Seconds that the intervals cover until `now`. */
export function secondsOf(intervals: readonly Interval[], now: number): number {
	return intervals.reduce((sum, { start, stop }) => sum + ((stop ?? now) - start) / 1000, 0);
}
