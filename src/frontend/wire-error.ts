import { type ErrorCode, type SlipwayError, toError, wrap } from "../errors/errors.ts";
import { keepsCode } from "../errors/kept-code.ts";

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

/** An error of a build as clients of BuildKit's API get it. */
export function wireError(thrown: unknown): SlipwayError {
	const error = toError(thrown);
	return kept.has(error.code) || keepsCode(error) ? error : wrap(error, "", { code: "unknown" });
}
