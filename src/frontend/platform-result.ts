import { orderedPlatform, type Platform } from "../oci/platform.ts";
import { type FrontendRef, type FrontendResult, resultKeys } from "./frontend.ts";

/** What was built for one platform. */
export interface BuiltPlatform {
	/** `linux/amd64`, with the OS version where there is one. */
	readonly id: string;
	readonly platform: Platform;
	/** Undefined for the empty file system. */
	readonly ref: FrontendRef | undefined;
	/** JSON. */
	readonly imageConfig: Uint8Array;
	/** JSON; undefined for `FROM scratch`. */
	readonly baseImageConfig: Uint8Array | undefined;
	/** Seconds since 1970, where there is one that all times are set to. */
	readonly epoch: number | undefined;
}

/** The result of images for these platforms, in this order; by platform, or of the only one. */
export function platformResult(
	platforms: readonly BuiltPlatform[],
	{ multiPlatform }: { readonly multiPlatform: boolean },
): FrontendResult {
	const encoder = new TextEncoder();
	const metadata: Record<string, Uint8Array> = {};
	for (const { id, imageConfig, baseImageConfig, epoch } of platforms) {
		const suffix = multiPlatform ? `/${id}` : "";
		metadata[resultKeys.imageConfig + suffix] = imageConfig;
		if (baseImageConfig !== undefined) {
			metadata[resultKeys.baseImageConfig + suffix] = baseImageConfig;
		}
		if (epoch !== undefined) {
			metadata[resultKeys.epoch + suffix] = encoder.encode(String(epoch));
		}
	}
	const list = platforms.map(({ id, platform }) => ({ ID: id, Platform: orderedPlatform(platform) }));
	metadata[resultKeys.platforms] = encoder.encode(JSON.stringify({ Platforms: list }));
	return {
		ref: multiPlatform ? undefined : platforms[0]?.ref,
		refs: new Map(multiPlatform ? platforms.map(({ id, ref }) => [id, ref]) : []),
		metadata,
		attestations: new Map(),
	};
}
