import * as pb from "../api/generated/ops.ts";
import { type Position, SlipwayError, type SourceRange } from "../errors/errors.ts";
import { sha256 } from "../oci/digest.ts";
import type { Definition, LinuxResources, MappedFile, MappedLocation, OpMetadata, SourceMap } from "./llb.ts";

/** The bytes of a `pb.Definition`; equal definitions have equal bytes. */
export function encodeDefinition(definition: Definition): Uint8Array {
	return pb.Definition.encode(toDefinitionMessage(definition)).finish();
}

/** Reads bytes of any origin; the ops in them are looked at by `load`. Throws `invalid-argument`. */
export function decodeDefinition(bytes: Uint8Array): Definition {
	try {
		return fromDefinitionMessage(pb.Definition.decode(bytes));
	} catch (error) {
		throw new SlipwayError("invalid-argument", `invalid definition: ${messageOf(error)}`, { cause: error });
	}
}

/** What the decoder says; its errors are no sentences of ours. */
export function messageOf(error: unknown): string {
	return error instanceof Error ? error.message : String(error);
}

export function toDefinitionMessage({ ops, metadata, source }: Definition): pb.Definition {
	return {
		def: ops.map(({ bytes }) => bytes),
		metadata: new Map([...metadata].map(([digest, own]) => [digest, toMetadataMessage(own)])),
		Source: source === undefined ? undefined : toSourceMessage(source),
	};
}

export function fromDefinitionMessage(message: pb.Definition): Definition {
	return {
		ops: message.def.map((bytes) => ({ digest: sha256(bytes), bytes })),
		metadata: new Map([...message.metadata].map(([digest, own]) => [digest, fromMetadataMessage(own)])),
		...(message.Source === undefined ? {} : { source: fromSourceMessage(message.Source) }),
	};
}

function toMetadataMessage(metadata: OpMetadata): pb.OpMetadata {
	const { exportCache } = metadata;
	return {
		ignoreCache: metadata.ignoreCache,
		description: new Map(metadata.description),
		exportCache: exportCache === undefined ? undefined : { Value: exportCache },
		caps: new Map([...metadata.caps].map((id) => [id, true])),
		progressGroup: metadata.progressGroup,
		linuxResources: metadata.linuxResources,
	};
}

function fromMetadataMessage(message: pb.OpMetadata): OpMetadata {
	const { exportCache, progressGroup, linuxResources } = message;
	return {
		ignoreCache: message.ignoreCache,
		description: message.description,
		caps: new Set(message.caps.keys()),
		...(exportCache === undefined ? {} : { exportCache: exportCache.Value }),
		...(progressGroup === undefined
			? {}
			: { progressGroup: { id: progressGroup.id, name: progressGroup.name, weak: progressGroup.weak } }),
		...(linuxResources === undefined ? {} : { linuxResources: fromResources(linuxResources) }),
	};
}

function fromResources(message: pb.LinuxResources): LinuxResources {
	const { memory, memorySwap, cpuShares, cpuPeriod, cpuQuota, cpusetCpus, cpusetMems } = message;
	return { memory, memorySwap, cpuShares, cpuPeriod, cpuQuota, cpusetCpus, cpusetMems };
}

function toSourceMessage({ files, locations }: SourceMap): pb.Source {
	return {
		infos: files.map(({ filename, data, definition, language }) => ({
			filename,
			data,
			definition: definition === undefined ? undefined : toDefinitionMessage(definition),
			language: language ?? "",
		})),
		locations: new Map(
			[...locations].map(([digest, own]) => [
				digest,
				{ locations: own.map(({ file, ranges }) => ({ sourceIndex: file, ranges })) },
			]),
		),
	};
}

function fromSourceMessage(message: pb.Source): SourceMap {
	const files = message.infos.map(
		({ filename, data, definition, language }): MappedFile => ({
			filename,
			data,
			...(language === "" ? {} : { language }),
			...(definition === undefined ? {} : { definition: fromDefinitionMessage(definition) }),
		}),
	);
	const locations = new Map<string, MappedLocation[]>();
	for (const [digest, own] of message.locations) {
		for (const { sourceIndex } of own.locations) {
			if (sourceIndex < 0 || sourceIndex >= files.length) {
				throw new SlipwayError("invalid-argument", `failed to find source map with index ${sourceIndex}`);
			}
		}
		if (own.locations.length > 0) {
			locations.set(
				digest,
				own.locations.map(({ sourceIndex, ranges }) => ({
					file: sourceIndex,
					ranges: ranges.map(fromRange),
				})),
			);
		}
	}
	return { files, locations };
}

function fromRange({ start, end }: pb.Range): SourceRange {
	return { start: fromPosition(start), end: fromPosition(end) };
}

function fromPosition(position: pb.Position | undefined): Position {
	return { line: position?.line ?? 0, character: position?.character ?? 0 };
}
