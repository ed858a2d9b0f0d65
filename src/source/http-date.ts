const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const month = `(${months.join("|")})`;
const clock = "(\\d{2}):(\\d{2}):(\\d{2})";

/** RFC 9110, section 5.6.7: the form of today and the two old ones; years, months and days by group. */
const forms = [
	{
		pattern: new RegExp(`^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\\d{2}) ${month} (\\d{4}) ${clock} GMT$`),
		order: [3, 2, 1, 4, 5, 6],
	},
	{
		pattern: new RegExp(
			`^(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (\\d{2})-${month}-(\\d{2}) ${clock} [A-Z]{3,5}$`,
		),
		order: [3, 2, 1, 4, 5, 6],
	},
	{
		pattern: new RegExp(`^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ${month} ([ \\d]\\d) ${clock} (\\d{4})$`),
		order: [6, 1, 2, 3, 4, 5],
	},
] as const;

/**
 * The time of a header such as Last-Modified. Only the standard's forms are dates, since the time is part of cache keys and
 * `Date.parse` takes much that BuildKit does not; undefined for all else.
 */
export function parseHttpDate(text: string | undefined): Date | undefined {
	for (const { pattern, order } of forms) {
		const match = pattern.exec(text ?? "");
		if (match === null) {
			continue;
		}
		const [year, name, day, hours, minutes, seconds] = order.map((group) => match[group] ?? "");
		const date = new Date(0);
		date.setUTCFullYear(fullYear(year ?? ""), months.indexOf(name ?? ""), Number(day));
		date.setUTCHours(Number(hours), Number(minutes), Number(seconds));
		// A 31st of April or an hour 25 has become another date.
		return date.getUTCDate() === Number(day) && date.getUTCHours() === Number(hours) ? date : undefined;
	}
	return undefined;
}

/** Two digits mean 1969 to 2068. */
function fullYear(text: string): number {
	const year = Number(text);
	return text.length === 4 ? year : year + (year >= 69 ? 1900 : 2000);
}

/** The form of today. */
export function formatHttpDate(date: Date): string {
	return date.toUTCString();
}
