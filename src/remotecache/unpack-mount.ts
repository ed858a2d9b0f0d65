import { chmodSync, chownSync } from "node:fs";
import type { Archiver } from "../archive/archive.ts";
import { withStatus } from "../exporter/status.ts";
import type { StepContext } from "../solver/solver.ts";
import type { PackedMount } from "./mounts.ts";
import type { ObjectStore } from "./objects.ts";

/** Fills an empty directory. Layers are verified; nothing leaves the directory. After an error it is to be thrown away. */
export async function unpackMount(
	{ name, layers, root }: PackedMount,
	directory: string,
	store: Pick<ObjectStore, "blobs">,
	archiver: Archiver,
	context: StepContext,
): Promise<void> {
	const { signal } = context;
	await withStatus(context, `restoring cache mount ${name}`, async () => {
		for (const { digest, size } of layers) {
			const chunks = store.blobs.read({ mediaType: "", digest, size }, { signal });
			await archiver.extractLayer(
				{
					source: { kind: "stream", chunks },
					root: directory,
					whiteouts: "apply",
					expected: { digest, size },
				},
				{ signal },
			);
		}
		chownSync(directory, root.uid, root.gid);
		chmodSync(directory, root.mode);
	});
}
