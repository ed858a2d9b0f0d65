import { SlipwayError } from "../errors/errors.ts";
import type { Compression } from "../oci/media-types.ts";
import { type AnnotationGroups, parseAnnotations } from "./annotations.ts";
import { type Epoch, parseEpochOption } from "./epoch.ts";
import { parseGoBool, parseGoInt } from "./go-values.ts";

/** The options that `image`, `oci` and `docker` share (BuildKit, exporter/containerimage/opts.go). */
export interface ImageOptions {
	/** Names, separated by commas; `*` takes the frontend's; empty is none. */
	readonly name: string;
	readonly compression: Compression | "estargz";
	/** Undefined is the format's default. */
	readonly level: number | undefined;
	readonly forceCompression: boolean;
	/** OCI media types; false is Docker's. */
	readonly ociTypes: boolean;
	/** Keep layers non-distributable that say where else they can be had. */
	readonly preferNonDistributable: boolean;
	readonly epoch: Epoch | undefined;
	/** No file in layers that were made here is younger than the epoch. */
	readonly rewriteTimestamp: boolean;
	readonly annotations: AnnotationGroups;
}

/** Throws `invalid-argument` with BuildKit's message. */
export function parseImageOptions(attrs: Readonly<Record<string, string>>): {
	readonly options: ImageOptions;
	readonly rest: Readonly<Record<string, string>>;
} {
	const { groups: annotations, rest: others } = parseAnnotations(attrs);
	const {
		name = "",
		compression = "gzip",
		"source-date-epoch": epoch,
		"force-compression": force,
		"compression-level": level,
		"oci-mediatypes": ociMediaTypes,
		"oci-artifact": ociArtifact,
		"attestation-inline": inline,
		"prefer-nondist-layers": preferNonDistributable,
		"rewrite-timestamp": rewrite,
		...rest
	} = others;
	const strict = (key: string, value: string | undefined): boolean | undefined =>
		value === undefined ? undefined : parseGoBool(value, `non-bool value specified for ${key}`);

	const parsedEpoch = epoch === undefined ? undefined : parseEpochOption(epoch);
	const kind = parseCompression(compression);
	const options: ImageOptions = {
		name,
		compression: kind,
		forceCompression: parseForce(force),
		level: parseLevel(level, kind),
		ociTypes: strict("oci-mediatypes", ociMediaTypes) ?? true,
		preferNonDistributable: strict("prefer-nondist-layers", preferNonDistributable) ?? false,
		epoch: parsedEpoch,
		rewriteTimestamp: strict("rewrite-timestamp", rewrite) ?? false,
		annotations,
	};
	const artifact = strict("oci-artifact", ociArtifact) ?? false;
	strict("attestation-inline", inline);
	if (!options.ociTypes && kind === "estargz") {
		throw invalid(`exporter option "compression=${kind}" conflicts with "oci-mediatypes=false"`);
	}
	if (!options.ociTypes && artifact) {
		throw invalid('exporter option "oci-artifact=true" conflicts with "oci-mediatypes=false"');
	}
	return { options, rest };
}

/** A flag that may stand without a value, which then means true. */
export function parseFlag(attrs: Readonly<Record<string, string>>, key: string): boolean | undefined {
	const value = attrs[key];
	return value === undefined
		? undefined
		: value === "" || parseGoBool(value, `non-bool value specified for ${key}`);
}

type CompressionName = ImageOptions["compression"];
const compressions: readonly CompressionName[] = ["uncompressed", "gzip", "estargz", "zstd"];

function parseCompression(text: string): CompressionName {
	const found = compressions.find((each) => each === text);
	if (found === undefined) {
		throw invalid(`unsupported compression type ${text}`);
	}
	return found;
}

function parseForce(text: string | undefined): boolean {
	return (
		text !== undefined &&
		(text === "" || parseGoBool(text, `non-bool value ${text} specified for force-compression`))
	);
}

const maxLevel: Readonly<Record<CompressionName, number>> = {
	uncompressed: Number.POSITIVE_INFINITY,
	gzip: 9,
	estargz: 9,
	zstd: 22,
};

function parseLevel(text: string | undefined, compression: CompressionName): number | undefined {
	if (text === undefined) {
		return undefined;
	}
	const level = parseGoInt(
		text,
		(problem) => `non-integer value ${text} specified for compression-level: ${problem}`,
	);
	if (level < 0 || level > maxLevel[compression]) {
		throw invalid(
			`invalid compression level ${level} for ${compression}: must be between 0 and ${maxLevel[compression]}`,
		);
	}
	switch (compression) {
		case "uncompressed":
			return undefined;
		case "zstd":
			// zstd itself has no level 0 but for "default"; in BuildKit 0 is the fastest.
			return Math.max(1, level);
		default:
			return level;
	}
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
