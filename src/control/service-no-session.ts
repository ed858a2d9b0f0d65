import { SlipwayError } from "../errors/errors.ts";
import type { Session } from "../session/session.ts";

/** What a client lends that opened no session: nothing. */
export const noSession: Session = {
	id: "",
	sharedKey: "",
	files: { sync: async () => missing() },
	auth: { credentials: async () => undefined },
	secrets: { secret: async () => missing() },
	ssh: { agent: async () => missing() },
	contentStore: () => undefined,
	output: () => undefined,
	closed: new AbortController().signal,
};

function missing(): never {
	throw new SlipwayError("unknown", "no active sessions");
}
