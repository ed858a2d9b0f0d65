import { hasCode, SlipwayError } from "../errors/errors.ts";
import type { Session } from "../session/session.ts";

/**
 * A secret that is sent as (part of) a header, from the first session that has it; undefined if none has. The line break at the
 * end, which editors and `echo` leave in secret files, is not part of it. Nothing of the secret is in errors.
 */
export async function findHeaderSecret(
	sessions: readonly Session[],
	name: string,
	{ signal }: { readonly signal: AbortSignal },
): Promise<string | undefined> {
	for (const session of sessions) {
		const data = await secretOf(session, name, signal);
		if (data === undefined) {
			continue;
		}
		const text = Buffer.from(data)
			.toString("utf8")
			.replace(/[\r\n]+$/, "");
		// A line break in the middle would let the secret's author write headers of his own.
		if (/[^\t\x20-\x7e]/.test(text)) {
			throw new SlipwayError("invalid-argument", `secret ${name} has characters that no header may have`);
		}
		return text;
	}
	return undefined;
}

async function secretOf(
	session: Session,
	name: string,
	signal: AbortSignal,
): Promise<Uint8Array | undefined> {
	try {
		return await session.secrets.secret(name, { signal });
	} catch (thrown) {
		if (hasCode(thrown, "not-found") || hasCode(thrown, "unimplemented")) {
			return undefined;
		}
		throw thrown;
	}
}
