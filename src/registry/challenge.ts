/** One challenge of a `WWW-Authenticate` header (RFC 9110, section 11.6.1). Scheme and parameter names are in lower case. */
export interface Challenge {
	readonly scheme: string;
	readonly parameters: Readonly<Record<string, string>>;
}

const token = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+";
const parameterPattern = new RegExp(
	`\\s*(${token})\\s*=\\s*(?:"((?:[^"\\\\]|\\\\.)*)"|(${token}))\\s*(?:,|$)`,
	"y",
);
const schemePattern = new RegExp(`[\\s,]*(${token})(?:\\s+|\\s*,|$)`, "y");
/** A server's headers are bounded by the HTTP parser; this bounds the work on a hostile one. */
const maxChallenges = 16;

/** Bearer challenges before Basic ones, others left out; what cannot be read is left out too. */
export function parseChallenges(headers: readonly string[]): readonly Challenge[] {
	const found = headers.flatMap(parseOne).filter(({ scheme }) => scheme === "bearer" || scheme === "basic");
	return found.sort((a, b) => Number(a.scheme === "basic") - Number(b.scheme === "basic"));
}

function parseOne(header: string): readonly Challenge[] {
	const challenges: Challenge[] = [];
	let at = 0;
	while (at < header.length && challenges.length < maxChallenges) {
		schemePattern.lastIndex = at;
		const scheme = schemePattern.exec(header)?.[1];
		if (scheme === undefined) {
			break;
		}
		at = schemePattern.lastIndex;
		const parameters: Record<string, string> = {};
		for (;;) {
			parameterPattern.lastIndex = at;
			const match = parameterPattern.exec(header);
			if (match === null) {
				break;
			}
			at = parameterPattern.lastIndex;
			const [, name = "", quoted, plain] = match;
			parameters[name.toLowerCase()] = quoted === undefined ? (plain ?? "") : quoted.replace(/\\(.)/g, "$1");
		}
		challenges.push({ scheme: scheme.toLowerCase(), parameters });
	}
	return challenges;
}
