/** Sizes and times in the words of Docker's commands (`docker/go-units`). */

const units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"] as const;

/** Four significant digits, decimal units: `1.234MB`, `16.4kB`, `0B`. */
export function humanSize(bytes: number): string {
	let size = bytes;
	let unit = 0;
	while (size >= 1000 && unit < units.length - 1) {
		size /= 1000;
		unit++;
	}
	return `${Number(size.toPrecision(4))}${units[unit]}`;
}

const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;
const day = 24 * hour;

/** `About a minute`, `3 weeks`. */
export function humanDuration(milliseconds: number): string {
	const count = (unit: number): number => Math.trunc(milliseconds / unit);
	if (count(second) < 1) {
		return "Less than a second";
	}
	if (count(second) < 60) {
		return count(second) === 1 ? "1 second" : `${count(second)} seconds`;
	}
	if (count(minute) < 60) {
		return count(minute) === 1 ? "About a minute" : `${count(minute)} minutes`;
	}
	const hours = Math.round(milliseconds / hour);
	if (hours < 48) {
		return hours === 1 ? "About an hour" : `${hours} hours`;
	}
	if (hours < 24 * 7 * 2) {
		return `${Math.trunc(hours / 24)} days`;
	}
	if (hours < 24 * 30 * 2) {
		return `${Math.trunc(hours / 24 / 7)} weeks`;
	}
	return hours < 24 * 365 * 2
		? `${Math.trunc(hours / 24 / 30)} months`
		: `${Math.trunc(milliseconds / (365 * day))} years`;
}
