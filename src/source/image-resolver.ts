import { createSingleFlight } from "../async/single-flight.ts";
import { formatPlatformAll, hostPlatform } from "../oci/platform.ts";
import { formatReference, withDefaultTag, withDigest } from "../oci/reference.ts";
import { parseImageReference } from "./image.ts";
import { readImage } from "./image-documents.ts";
import { clientOrigin } from "./oci-layout.ts";
import { type ImageAccess, imageOrigin } from "./registry-origin.ts";
import type { ImageResolver, ResolvedImage } from "./source.ts";

/**
 * Errors are BuildKit's without its `failed to resolve source metadata for <ref>`, which the frontend puts in front.
 * Whoever has the same sessions and asks at the same time shares one answer; others do not, since a login may be part of it.
 */
export function createImageResolver(access: ImageAccess): ImageResolver {
	const flight = createSingleFlight<string, ResolvedImage>();
	return {
		resolve: (request, options) => {
			const { ref, mode, sessions, store } = request;
			const platform = request.platform ?? hostPlatform();
			const key = JSON.stringify([
				ref,
				formatPlatformAll(platform),
				mode,
				store?.sessionId ?? "",
				store?.storeId ?? "",
				sessions().map((session) => session.id),
			]);
			return flight.run(
				key,
				async (signal) => {
					const reference = withDefaultTag(parseImageReference(ref));
					const origin =
						store === undefined
							? imageOrigin(reference, mode, access, sessions)
							: clientOrigin(ref, { content: access.content, sessions, store });
					const { root, configBytes } = await readImage(origin, platform, { signal });
					return {
						ref: formatReference(withDigest(reference, root.digest)),
						digest: root.digest,
						config: configBytes,
					};
				},
				options,
			);
		},
	};
}
