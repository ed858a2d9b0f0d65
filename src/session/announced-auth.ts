import { sha256 } from "../oci/digest.ts";
import { newIdentity } from "../oci/identity.ts";
import { type ProgressSink, progressTime } from "../progress/progress.ts";
import type { LocalSessionOptions } from "./local-session.ts";

type Lent = Pick<LocalSessionOptions, "auth" | "tokenAuthority">;

/**
 * Logins that are shown when a builder uses them, each as a step of the build: the person sees where they go. Tokens of registries that
 * nobody is logged in at are not worth a line.
 */
export function announcedAuth({ auth, tokenAuthority }: Lent, progress: ProgressSink): Lent {
	if (auth === undefined) {
		return tokenAuthority === undefined ? {} : { tokenAuthority };
	}
	const shared = new Set<string>();
	return {
		auth: {
			...auth,
			async credentials(host, options) {
				const found = await auth.credentials(host, options);
				if (found !== undefined && !shared.has(host)) {
					shared.add(host);
					announce(progress, `[auth] sharing credentials for ${host}`);
				}
				return found;
			},
		},
		...(tokenAuthority === undefined
			? {}
			: {
					tokenAuthority: {
						...tokenAuthority,
						async fetch(request, options) {
							if ((await auth.credentials(request.host, options)) !== undefined) {
								const scopes = request.scopes.map((scope) => scope.replace(/^repository:/, "")).join(" ");
								announce(progress, `[auth] ${scopes} token for ${request.host}`);
							}
							return await tokenAuthority.fetch(request, options);
						},
					},
				}),
	};
}

/** A step that takes no time. */
function announce(progress: ProgressSink, name: string): void {
	const started = progressTime();
	const vertex = { digest: sha256(newIdentity()), inputs: [], name, cached: false, started };
	progress.write({ kind: "vertex", vertex });
	progress.write({ kind: "vertex", vertex: { ...vertex, completed: progressTime() } });
}
