import { chunksOf } from "../content/bytes.ts";
import { SlipwayError } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";
import { hostPlatform } from "../oci/platform.ts";
import { platformMatcher } from "../oci/platform-match.ts";
import { type ExportSource, resolveSource } from "./export-source.ts";
import type { ExportContext, Exporter, ExporterFactory, ExporterServices } from "./exporter.ts";
import { parseFlag, parseImageOptions } from "./image-options.ts";
import { type WrittenImage, writeImage } from "./image-writer.ts";
import { fetchLayers } from "./layer-files.ts";
import { checkNames, frontendNames, namesOf, normalizeName } from "./names.ts";
import { checkByDigest, type PushOptions, pushImage } from "./push-image.ts";
import { imageResponse } from "./response.ts";
import { withStatus } from "./status.ts";

interface KeepOptions {
	readonly store: boolean;
	/** `store` was asked for, not only not refused. */
	readonly storeAsked: boolean;
	readonly unpack: boolean;
	/** Keep the image also if some of its layers are only known, not here. */
	readonly allowIncomplete: boolean;
	readonly nameCanonical: boolean;
	readonly danglingPrefix: string;
	/** Only an image without a name is named after the prefix. */
	readonly danglingEmptyOnly: boolean;
}

/**
 * `image`: documents go into the content store and names into the image store, which keeps all that they need. An image without
 * a name, or with `store=false`, is only computed: nothing could find its documents, so none are written. With `push` it goes
 * to the registries of its names; layers that were never fetched are not fetched for the image store then (unless that is asked
 * for by `store=true`), since the registry has them.
 */
export function createImageExporter(services: ExporterServices): ExporterFactory {
	return (attrs): Exporter => {
		const { options, rest } = parseImageOptions(attrs);
		const { keep, push, overrides } = parseKeepOptions(rest);
		checkNames(options.name);
		if (push?.byDigest === true && options.name !== "" && options.name !== frontendNames) {
			for (const name of options.name.split(",")) {
				checkByDigest(name);
			}
		}
		return {
			name: "exporting to image",
			async export(result, context) {
				const source = resolveSource(result, overrides);
				const given = namesOf(options.name, source.metadata);
				const isKept = keep.store && (given !== "" || keep.danglingPrefix !== "");
				const put = async (digest: Digest, document: Uint8Array): Promise<void> => {
					if (isKept) {
						await services.content.write(chunksOf(document), {
							expected: { digest, size: document.length },
							signal: context.signal,
						});
					}
				};
				const image = await writeImage(source, { ...options, services, put }, context);
				const { names, canonical } = withDanglingName(given, image.root.digest, keep);
				if (isKept) {
					if (!keep.allowIncomplete && (push === undefined || keep.storeAsked)) {
						await fetchLayers(image.layers, services.content, context);
					}
					for (const name of names) {
						await keepImage(
							name,
							image,
							{ ...keep, nameCanonical: canonical, rewritten: options.rewriteTimestamp },
							{ services, context, source },
						);
					}
				}
				if (push !== undefined) {
					for (const name of names) {
						await pushImage(name, image, push, services, context);
					}
				}
				return imageResponse(image, image.root, names.length === 0 ? undefined : names.join(","));
			},
		};
	};
}

function parseKeepOptions(attrs: Readonly<Record<string, string>>): {
	readonly keep: KeepOptions;
	/** Undefined: not at all. */
	readonly push: PushOptions | undefined;
	readonly overrides: Readonly<Record<string, string>>;
} {
	const flag = (key: string): boolean | undefined => parseFlag(attrs, key);
	const keep: KeepOptions = {
		store: flag("store") ?? true,
		storeAsked: flag("store") ?? false,
		unpack: flag("unpack") ?? false,
		allowIncomplete: flag("unsafe-internal-store-allow-incomplete") ?? false,
		nameCanonical: flag("name-canonical") ?? false,
		danglingPrefix: attrs["dangling-name-prefix"] ?? "",
		danglingEmptyOnly: flag("danging-name-empty-only") ?? false,
	};
	const byDigest = flag("push-by-digest") ?? false;
	const insecure = flag("registry.insecure") ?? false;
	// They say how to push; without `push` they say nothing.
	const push = flag("push") === true ? { byDigest, insecure } : undefined;
	const overrides = Object.entries(attrs).filter(([key]) => !ownKeys.has(key));
	return { keep, push, overrides: Object.fromEntries(overrides) };
}

const ownKeys: ReadonlySet<string> = new Set([
	"store",
	"unpack",
	"unsafe-internal-store-allow-incomplete",
	"name-canonical",
	"dangling-name-prefix",
	// Misspelt in BuildKit's protocol.
	"danging-name-empty-only",
	"push",
	"push-by-digest",
	"registry.insecure",
]);

/** The prefix with the digest names an image that has no other name, or is one more of its names. */
function withDanglingName(
	given: string,
	digest: Digest,
	{ danglingPrefix, danglingEmptyOnly, nameCanonical }: KeepOptions,
): { readonly names: readonly string[]; readonly canonical: boolean } {
	const names = given === "" ? [] : given.split(",");
	if (danglingPrefix === "" || (danglingEmptyOnly && given !== "")) {
		return { names, canonical: nameCanonical };
	}
	return { names: [...names, `${danglingPrefix}@${digest}`], canonical: nameCanonical && given !== "" };
}

async function keepImage(
	name: string,
	{ root }: WrittenImage,
	{ nameCanonical, unpack, rewritten }: KeepOptions & { readonly rewritten: boolean },
	{
		services,
		context,
		source,
	}: {
		readonly services: ExporterServices;
		readonly context: ExportContext;
		readonly source: ExportSource;
	},
): Promise<void> {
	await withStatus(context, `naming to ${name}`, async () => {
		const full = normalizeName(name);
		services.images.put(full, root);
		if (nameCanonical && !full.includes("@")) {
			services.images.put(`${full}@${root.digest}`, root);
		}
	});
	if (unpack && rewritten) {
		// What is unpacked here are the layers as they were made.
		throw new SlipwayError("invalid-argument", 'exporter option "rewrite-timestamp" conflicts with "unpack"');
	}
	if (unpack) {
		await unpackFor(name, source, context);
	}
}

/** Makes the files of the image for this machine real; of an image for other machines only, nothing. */
async function unpackFor(name: string, { platforms }: ExportSource, context: ExportContext): Promise<void> {
	const matcher = platformMatcher(hostPlatform());
	const [best] = platforms
		.filter(({ platform }) => matcher.matches(platform))
		.sort((one, other) => matcher.compare(one.platform, other.platform));
	const ref = best?.ref;
	if (ref !== undefined) {
		const { signal, progress, vertex } = context;
		await withStatus(context, `unpacking to ${name}`, () => ref.mounts({ signal, progress, vertex }));
	}
}
