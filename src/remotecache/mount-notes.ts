import type { MutableRef } from "../cache/cache.ts";
import type { MountListing } from "./list-mount.job.ts";
import { type PackedLayer, type PackedMount, parseLayer } from "./mounts.ts";

/** Layers by the state of the files that they were made of (`MountGroup.state`). */
export type KnownLayers = ReadonlyMap<string, PackedLayer>;

const notesKey = "remotecache.mount-layers";

/** What is noted of a cache mount with its record: untouched files need not be packed again to know what they are packed into. */
export function readNotes(ref: Pick<MutableRef, "getMetadata">): KnownLayers {
	const text = ref.getMetadata(notesKey);
	try {
		const entries = text === undefined ? [] : (JSON.parse(text) as readonly (readonly [string, unknown])[]);
		return new Map(entries.map(([state, layer]) => [state, parseLayer(layer)]));
	} catch {
		// Notes of another version spare nothing.
		return new Map();
	}
}

export function writeNotes(ref: Pick<MutableRef, "setMetadata">, known: KnownLayers): void {
	ref.setMetadata(notesKey, JSON.stringify([...known]));
}

/** What is known of a directory that was just restored: groups of the same names have their files from the layer of those. */
export function restoredLayers({ groups }: MountListing, { layers }: PackedMount): KnownLayers {
	const byNames = new Map(
		layers.flatMap((layer) => (layer.names === undefined ? [] : [[layer.names, layer]])),
	);
	return new Map(
		groups.flatMap(({ names, state }) => {
			const layer = byNames.get(names);
			return layer === undefined ? [] : [[state, layer]];
		}),
	);
}
