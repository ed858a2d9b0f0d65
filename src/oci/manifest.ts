import type { Descriptor } from "./descriptor.ts";

/** OCI image spec, manifest.md; Docker's manifest v2 schema 2 has the same shape. */
export interface Manifest {
	readonly schemaVersion: 2;
	readonly mediaType?: string;
	readonly artifactType?: string;
	readonly config: Descriptor;
	readonly layers: readonly Descriptor[];
	readonly subject?: Descriptor;
	readonly annotations?: Readonly<Record<string, string>>;
}

/** OCI image spec, image-index.md; Docker's manifest list has the same shape. */
export interface ImageIndex {
	readonly schemaVersion: 2;
	readonly mediaType?: string;
	readonly artifactType?: string;
	readonly manifests: readonly Descriptor[];
	readonly subject?: Descriptor;
	readonly annotations?: Readonly<Record<string, string>>;
}
