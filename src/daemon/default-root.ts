import { join } from "node:path";

/** Where state lies unless told otherwise: `/var/lib/slipway`, or the user's own data directory. */
export function defaultRoot(env: Readonly<Record<string, string | undefined>>, uid: number): string {
	if (uid === 0) {
		return "/var/lib/slipway";
	}
	const data = env["XDG_DATA_HOME"];
	return join(data === undefined || data === "" ? join(env["HOME"] ?? "/", ".local/share") : data, "slipway");
}
