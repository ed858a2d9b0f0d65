import { join } from "node:path";

type Env = Readonly<Record<string, string | undefined>>;

/** The uid of the user, also in the user namespace that was made for him (user-namespace.ts), where he seems to be root. */
export function ownUid(env: Env): number {
	return Number(env["SLIPWAY_OUTER_UID"] ?? process.getuid?.() ?? 0);
}

/** Where state lies unless told otherwise: `/var/lib/slipway`, or the user's own data directory. */
export function defaultRoot(env: Env): string {
	if (ownUid(env) === 0) {
		return "/var/lib/slipway";
	}
	const data = env["XDG_DATA_HOME"];
	return join(data === undefined || data === "" ? join(env["HOME"] ?? "/", ".local/share") : data, "slipway");
}
