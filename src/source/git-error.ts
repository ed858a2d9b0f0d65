import { type ErrorCode, redactUrl, SlipwayError } from "../errors/errors.ts";
import type { GitFailure } from "./git-command.ts";

interface Explanation {
	readonly pattern: RegExp;
	readonly code: ErrorCode;
	readonly text: string;
}

/** What git, curl and ssh say, in the order of what decides. */
const explanations: readonly Explanation[] = [
	{
		pattern: /^(?:.*: )?(?:exec: )?git: not found$/m,
		code: "failed-precondition",
		text: "git is not installed on the builder",
	},
	{
		pattern: /cannot run ssh|ssh: not found/,
		code: "failed-precondition",
		text: "ssh is not installed on the builder",
	},
	{
		pattern: /Host key verification failed|No .* host key is known/,
		code: "permission-denied",
		text: "the host key of the server is not the known one",
	},
	{
		pattern: /Permission denied \((?:publickey|password|keyboard-interactive|gssapi|hostbased)/,
		code: "unauthenticated",
		text: "the server does not accept the ssh keys that the client forwards",
	},
	{
		pattern:
			/could not read (?:Username|Password) for|Authentication failed for|HTTP Basic: Access denied|returned error: 401/,
		code: "unauthenticated",
		text: 'the server wants a login, or the repository does not exist; pass a token as the secret "GIT_AUTH_TOKEN"',
	},
	{
		pattern: /returned error: 403/,
		code: "permission-denied",
		text: "the server does not let this login read the repository",
	},
	{
		pattern:
			/repository '.*' not found|Repository not found|does not appear to be a git repository|returned error: 404|not valid: is this a git repository\?|repository not exported/,
		code: "not-found",
		text: "the repository does not exist, or may require authorization",
	},
	{
		pattern: /Could(?:n't| not) resolve (?:host|hostname)|unable to look up/,
		code: "unavailable",
		text: "no such host",
	},
	{
		pattern: /Connection refused|Failed to connect to|Couldn't connect to server|unable to connect to/,
		code: "unavailable",
		text: "no connection to the server",
	},
	{
		pattern: /Connection timed out|Operation too slow|Operation timed out/,
		code: "deadline-exceeded",
		text: "the server does not answer",
	},
	{
		pattern: /couldn't find remote ref (\S+)/,
		code: "not-found",
		text: "repository does not contain ref $1",
	},
	{ pattern: /No space left on device/, code: "resource-exhausted", text: "no space left on device" },
];

/** One sentence of what went wrong, and git's own words for it; all of its words are in the step's log. */
export function explainGitFailure(failure: GitFailure, remote: string): SlipwayError {
	const { stderr, code } = failure;
	const fail = (kind: ErrorCode, text: string): SlipwayError =>
		new SlipwayError(kind, `failed to fetch remote ${redactUrl(remote)}: ${text}`, { cause: failure });
	for (const { pattern, code: kind, text } of explanations) {
		const match = pattern.exec(stderr);
		if (match !== null) {
			return fail(kind, text.replace("$1", match[1] ?? ""));
		}
	}
	const said = lastWords(stderr);
	return fail("unknown", said === "" ? `git ended with exit code ${code}` : said);
}

/**
 * True for what git says of a repository on this side that is damaged, or in the way of what is fetched: another, new one may
 * not have it.
 */
export function isLocalDamage({ stderr }: GitFailure): boolean {
	return /bad object|bad tree|missing (?:blob|tree|commit)|corrupt|unable to read|[Cc]ould not read|inflate|bad (?:signature|index|config)|packfile|pack has|invalid (?:object|sha1|index)|not a git repository|cannot lock ref|unable to update local ref|local refs could not be updated|refname conflict|would clobber|\.lock': File exists|failed to (?:parse|traverse)|unresolved deltas|shallow file has changed|not a valid (?:object|ref)|reference broken/.test(
		stderr,
	);
}

/** The line in which git gave up; of several the last, for the first ones are of its helpers. */
function lastWords(stderr: string): string {
	const lines = redactOutput(stderr)
		.split(/[\r\n]+/)
		.map((line) => line.replace(/\p{C}/gu, " ").trim())
		.filter((line) => line !== "");
	const fatal = lines.filter((line) => /^(?:fatal|error): /.test(line));
	return (fatal.at(-1) ?? lines.at(-1) ?? "").slice(0, 500);
}

/** Without logins in URLs. */
export function redactOutput(text: string): string {
	return text.replace(/\b([a-z][a-z0-9+.-]*:\/\/)[^\s/@'"]+@/gi, "$1xxxxx@");
}
