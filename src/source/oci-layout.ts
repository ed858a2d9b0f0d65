import type { CacheManager } from "../cache/cache.ts";
import type { ContentReader, ContentStore } from "../content/content.ts";
import { SlipwayError } from "../errors/errors.ts";
import { type Digest, isDigest } from "../oci/digest.ts";
import { hostPlatform } from "../oci/platform.ts";
import type { Session } from "../session/session.ts";
import { identifierOf, parseLayerLimit } from "./image.ts";
import { createImageInstance } from "./image-instance.ts";
import { type ImageOrigin, layoutOrigin } from "./image-origin.ts";
import type { Source } from "./source.ts";

export interface OciLayoutSourceOptions {
	readonly content: ContentStore;
	readonly cache: Pick<CacheManager, "fromLayers">;
}

const scheme = "oci-layout://";

/** `oci-layout://name@digest`: an image in a content store that a client lends, named by the attribute `oci.store`. */
export function createOciLayoutSource({ content, cache }: OciLayoutSourceOptions): Source {
	return {
		schemes: ["oci-layout"],
		open: (request) => {
			const { attrs, sessions } = request;
			const origin = clientOrigin(identifierOf(request, scheme), {
				content,
				sessions,
				store: { sessionId: attrs["oci.session"] || undefined, storeId: attrs["oci.store"] ?? "" },
			});
			return createImageInstance({
				origin,
				platform: request.platform ?? hostPlatform(),
				cache,
				layerLimit: parseLayerLimit(attrs["oci.layerlimit"]),
			});
		},
	};
}

export function clientOrigin(
	name: string,
	options: {
		readonly content: ContentStore;
		readonly sessions: () => readonly Session[];
		readonly store: { readonly sessionId: string | undefined; readonly storeId: string };
	},
): ImageOrigin {
	const { content, sessions, store } = options;
	return layoutOrigin(name, digestOf(name), {
		content,
		reader: () => findStore(name, sessions(), store),
	});
}

/** The tag of a layout is resolved by the client, who alone can read its index. */
function digestOf(name: string): Digest {
	const digest = name.slice(name.indexOf("@") + 1);
	if (!name.includes("@") || !isDigest(digest)) {
		throw new SlipwayError("invalid-argument", `reference ${JSON.stringify(name)} must have digest`);
	}
	return digest;
}

/** The content store that a session of the build lends under the name. Throws `not-found` if there is none. */
export function findStore(
	name: string,
	sessions: readonly Session[],
	{ sessionId, storeId }: { readonly sessionId: string | undefined; readonly storeId: string },
): ContentReader {
	const asked = sessionId === undefined ? sessions : sessions.filter((session) => session.id === sessionId);
	if (asked.length === 0) {
		throw new SlipwayError(
			"not-found",
			`no active session${sessionId === undefined ? "" : ` for ${sessionId}`} to read ${name} from`,
		);
	}
	for (const session of asked) {
		const reader = session.contentStore(storeId);
		if (reader !== undefined) {
			return reader;
		}
	}
	throw new SlipwayError("not-found", `the client has no OCI layout ${JSON.stringify(storeId)} for ${name}`);
}
