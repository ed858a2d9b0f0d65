import { createReadStream, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Archiver } from "../archive/archive.ts";
import { createLimit } from "../async/limit.ts";
import type { ThreadPool } from "../async/pool.ts";
import { SlipwayError } from "../errors/errors.ts";
import { withStatus } from "../exporter/status.ts";
import type { Digest } from "../oci/digest.ts";
import type { StepContext } from "../solver/solver.ts";
import type { MountGroup, MountListing } from "./list-mount.job.ts";
import type { KnownLayers } from "./mount-notes.ts";
import type { PackedLayer, PackedMount } from "./mounts.ts";
import type { ObjectStore } from "./objects.ts";

export interface MountPacker {
	readonly archiver: Archiver;
	readonly pool: ThreadPool;
	/** For layers that are on their way; swept at the next start. */
	readonly temporaryRoot: string;
}

/** Layers that are written and sent at the same time. */
const atATime = 3;
/** Fast, and small enough: what is in a cache is compressed already as a rule. */
const compression = { kind: "zstd", level: 1 } as const;

/**
 * Sends the directory's files to the store, of which only what it lacks travels. Files that are as they were when their layer became
 * known are not read unless the store lacks that layer. Nobody else writes to the directory meanwhile.
 */
export async function packMount(
	name: string,
	directory: string,
	{ store, known }: { readonly store: ObjectStore; readonly known: KnownLayers },
	packer: MountPacker,
	context: StepContext,
): Promise<{ readonly mount: PackedMount; readonly known: KnownLayers }> {
	const { signal } = context;
	const { root, groups } = await listMount(directory, packer, context);
	mkdirSync(packer.temporaryRoot, { recursive: true, mode: 0o700 });
	const limit = createLimit(atATime);
	const layers = await Promise.all(
		groups.map(async (group): Promise<readonly [string, PackedLayer]> => {
			using _slot = await limit.acquire({ signal });
			const before = known.get(group.state);
			const layer =
				(before && (await sendKnown(before, group, { directory, store, packer, context }))) ??
				(await sendGroup(group, { directory, store, packer, context }));
			return [group.state, layer];
		}),
	);
	return { mount: { name, layers: layers.map(([, layer]) => layer), root }, known: new Map(layers) };
}

export function listMount(
	directory: string,
	{ pool }: Pick<MountPacker, "pool">,
	{ signal }: Pick<StepContext, "signal">,
): Promise<MountListing> {
	return pool.run<string, MountListing>("remotecache/list-mount", directory, { signal });
}

interface Sending {
	readonly directory: string;
	readonly store: ObjectStore;
	readonly packer: MountPacker;
	readonly context: StepContext;
}

/** The group's layer if it is what it was known to be; undefined if it turns out to be another one. */
async function sendKnown(
	layer: PackedLayer,
	group: MountGroup,
	sending: Sending,
): Promise<PackedLayer | undefined> {
	const { store, context } = sending;
	const { digest } = layer;
	let isOther = false;
	async function* open(): AsyncGenerator<Uint8Array> {
		using file = await writeGroup(group, sending);
		if (file.digest !== digest) {
			isOther = true;
			throw new SlipwayError("aborted", `the files of layer ${digest} are packed into ${file.digest}`);
		}
		yield* createReadStream(file.path);
	}
	try {
		await withStatus(context, `writing layer ${digest}`, () => store.putBlob(layer, open, context));
		return { ...layer, names: group.names };
	} catch (error) {
		if (isOther && !context.signal.aborted) {
			return undefined;
		}
		throw error;
	}
}

async function sendGroup(group: MountGroup, sending: Sending): Promise<PackedLayer> {
	const { store, context } = sending;
	using file = await writeGroup(group, sending);
	const layer = { digest: file.digest, size: file.size, names: group.names };
	await withStatus(context, `writing layer ${file.digest}`, () =>
		store.putBlob(layer, () => createReadStream(file.path), context),
	);
	return layer;
}

interface WrittenGroup extends Disposable {
	readonly digest: Digest;
	readonly size: number;
	readonly path: string;
}

async function writeGroup(
	{ changes }: MountGroup,
	{ directory, packer, context: { signal } }: Sending,
): Promise<WrittenGroup> {
	const dest = join(packer.temporaryRoot, crypto.randomUUID());
	const remove = (): void => rmSync(dest, { force: true });
	try {
		const source = { kind: "changes", root: directory, changes } as const;
		const { digest, size } = await packer.archiver.writeLayer({ source, dest, compression }, { signal });
		return { digest: digest as string as Digest, size, path: dest, [Symbol.dispose]: remove };
	} catch (error) {
		remove();
		throw error;
	}
}
