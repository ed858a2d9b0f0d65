import { hasCode, SlipwayError } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { type ImageConfig, parseImageConfig } from "../oci/image-config.ts";
import { type Manifest, parseManifestDocument } from "../oci/manifest.ts";
import { isIndexType, isManifestType } from "../oci/media-types.ts";
import type { Platform } from "../oci/platform.ts";
import { type PlatformMatcher, platformMatcher, selectByPlatform } from "../oci/platform-match.ts";
import type { ImageOrigin } from "./image-origin.ts";

/** An image's documents for one platform. */
export interface ImageDocuments {
	/** What the name points to: a manifest or an index. */
	readonly root: Descriptor;
	readonly manifest: Manifest;
	readonly configBytes: Uint8Array;
	readonly config: ImageConfig;
}

/** An index in an index is seen; more is an attempt to keep us busy. */
const maxIndexDepth = 4;
/** Entries that do not say their platform cost a request each. */
const maxUnknown = 16;

/**
 * Resolves an image and reads what describes it for the platform. As in BuildKit a name that points to a manifest, not to an
 * index, is taken for whatever platform it is. Throws `not-found` if no entry of an index fits.
 */
export async function readImage(
	origin: ImageOrigin,
	platform: Platform,
	options: { readonly signal: AbortSignal },
): Promise<ImageDocuments> {
	const root = await origin.resolve(options);
	const found = await find(origin, root, platformMatcher(platform), 0, options);
	if (found === undefined) {
		throw new SlipwayError("not-found", `no match for platform in manifest ${root.digest}: not found`);
	}
	return { root, ...found };
}

type Found = Omit<ImageDocuments, "root">;

async function find(
	origin: ImageOrigin,
	descriptor: Descriptor,
	matcher: PlatformMatcher,
	depth: number,
	options: { readonly signal: AbortSignal },
): Promise<Found | undefined> {
	const { digest, mediaType } = descriptor;
	if (!isIndexType(mediaType) && !isManifestType(mediaType)) {
		if (depth > 0) {
			return undefined;
		}
		throw new SlipwayError(
			"not-found",
			`unexpected media type ${mediaType} for ${digest} of ${origin.name}: not found`,
		);
	}
	// The size of the root is what a HEAD said, which a compressing proxy may get wrong.
	const bytes =
		depth === 0 ? await origin.document(descriptor, options) : await child(origin, descriptor, options);
	const document = parseManifestDocument(bytes, mediaType);
	if (document.kind === "manifest") {
		const { manifest } = document;
		const configBytes = await child(origin, manifest.config, options);
		const config = parseConfig(configBytes, origin.name);
		const mustMatch = depth > 0 && descriptor.platform === undefined;
		return mustMatch && !matcher.matches(config) ? undefined : { manifest, configBytes, config };
	}
	if (depth >= maxIndexDepth) {
		throw new SlipwayError(
			"resource-exhausted",
			`index ${digest} of ${origin.name} is nested deeper than ${maxIndexDepth} levels`,
		);
	}
	const candidates = selectByPlatform(document.index.manifests, matcher);
	const stated = candidates.filter((candidate) => candidate.platform !== undefined);
	const unknown = candidates.filter((candidate) => candidate.platform === undefined);
	for (const candidate of [...stated.slice(0, 1), ...unknown.slice(0, maxUnknown)]) {
		try {
			const found = await find(origin, candidate, matcher, depth + 1, options);
			if (found !== undefined) {
				return found;
			}
		} catch (thrown) {
			// What does not say its platform may be no image at all.
			if (candidate.platform !== undefined || !hasCode(thrown, "invalid-argument")) {
				throw thrown;
			}
		}
	}
	return undefined;
}

/** A document that another one describes: also one that is kept must have the stated size. */
async function child(
	origin: ImageOrigin,
	descriptor: Descriptor,
	options: { readonly signal: AbortSignal },
): Promise<Uint8Array> {
	const bytes = await origin.document(descriptor, options);
	if (bytes.length !== descriptor.size) {
		throw new SlipwayError(
			"data-loss",
			`document ${descriptor.digest} of ${origin.name} has ${bytes.length} bytes instead of ${descriptor.size}`,
		);
	}
	return bytes;
}

function parseConfig(bytes: Uint8Array, name: string): ImageConfig {
	try {
		return parseImageConfig(bytes);
	} catch (thrown) {
		const { message } = thrown as Error;
		throw new SlipwayError("invalid-argument", `failed to parse image config of ${name}: ${message}`, {
			cause: thrown,
		});
	}
}
