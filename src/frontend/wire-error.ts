import { type ErrorCode, type SlipwayError, toError, wrap } from "../errors/errors.ts";

/**
 * Codes of builds' errors that BuildKit has too. Its other errors are plain ones, which are `unknown` to clients; a client writes
 * every other code in front of the message.
 */
const kept: ReadonlySet<ErrorCode> = new Set([
	"canceled",
	"deadline-exceeded",
	"unimplemented",
	"resource-exhausted",
	"internal",
	"data-loss",
]);

const foreign = new WeakSet<object>();

/** An error that a client or frontend has made itself: its code is its own. */
export function keepCode(error: SlipwayError): SlipwayError {
	foreign.add(error);
	return error;
}

/** An error of a build as clients of BuildKit's API get it. */
export function wireError(thrown: unknown): SlipwayError {
	const error = toError(thrown);
	for (let at: unknown = error; at instanceof Error; at = at.cause) {
		if (foreign.has(at)) {
			return error;
		}
	}
	return kept.has(error.code) ? error : wrap(error, "", { code: "unknown" });
}
