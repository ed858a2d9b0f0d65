/** What a person can do about an error whose sentence, which other builders' clients know as it is, does not say so. */
const hints: readonly (readonly [pattern: RegExp, hint: (what: string) => string])[] = [
	[
		/(?:^|\s)(network\.host|security\.insecure) is not allowed$/,
		(what) => `if the step may have it, build with --allow ${what}`,
	],
	[
		/\b(?:ENOSPC|database or disk is full)\b/,
		() => "free space on that disk ('slipway prune' removes build cache)",
	],
];

/** The message with what to do about it, where that is known. */
export function withHint(message: string): string {
	for (const [pattern, hint] of hints) {
		const match = pattern.exec(message);
		if (match !== null) {
			return `${message}; ${hint(match[1] ?? "")}`;
		}
	}
	return message;
}
