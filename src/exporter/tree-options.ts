import { SlipwayError } from "../errors/errors.ts";
import { quoteGo } from "../oci/go-quote.ts";
import { type Epoch, epochOfMetadata, parseEpochOption } from "./epoch.ts";
import type { ExportSource } from "./export-source.ts";
import { parseGoBool } from "./go-values.ts";

/**
 * The options of `local` and `tar`. Others are not looked at, as in BuildKit: clients send them all kinds of attributes.
 * `attestation-prefix` is among those as long as results have no attestations that it could name.
 */
export interface TreeOptions {
	readonly epoch: Epoch | undefined;
	/** A directory per platform; undefined: if the result is for several. */
	readonly platformSplit: boolean | undefined;
}

/** Throws `invalid-argument` with BuildKit's messages. */
export function parseTreeOptions(attrs: Readonly<Record<string, string>>): TreeOptions {
	const { "source-date-epoch": epoch, "platform-split": split, mode } = attrs;
	const parsedEpoch = epoch === undefined ? undefined : parseEpochOption(epoch);
	if (mode !== undefined && !["", "copy", "delete"].includes(mode.trim().toLowerCase())) {
		throw new SlipwayError("invalid-argument", `invalid local exporter mode ${quoteGo(mode)}`);
	}
	return {
		epoch: parsedEpoch,
		platformSplit:
			split === undefined ? undefined : parseGoBool(split, `non-bool value for platform-split: ${split}`),
	};
}

/** The time of every file of one platform, in seconds; undefined leaves each its own. */
export function epochFor(
	platformId: string,
	{ epoch }: TreeOptions,
	{ metadata }: ExportSource,
): number | undefined {
	return epoch === undefined
		? (epochOfMetadata(metadata) ?? epochOfMetadata(metadata, platformId))
		: epoch.seconds;
}

/** The directory of a platform in an output that has one for each. */
export function platformDirectory(platformId: string): string {
	return platformId.replaceAll("/", "_");
}
