/** OCI image spec, media-types.md, and the Docker types that mean the same (distribution, manifest v2 schema 2). */
export const mediaTypes = {
	ociIndex: "application/vnd.oci.image.index.v1+json",
	ociManifest: "application/vnd.oci.image.manifest.v1+json",
	ociConfig: "application/vnd.oci.image.config.v1+json",
	ociLayer: "application/vnd.oci.image.layer.v1.tar",
	ociLayerGzip: "application/vnd.oci.image.layer.v1.tar+gzip",
	ociLayerZstd: "application/vnd.oci.image.layer.v1.tar+zstd",
	ociEmpty: "application/vnd.oci.empty.v1+json",
	dockerManifestList: "application/vnd.docker.distribution.manifest.list.v2+json",
	dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
	dockerConfig: "application/vnd.docker.container.image.v1+json",
	dockerLayer: "application/vnd.docker.image.rootfs.diff.tar",
	dockerLayerGzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
	dockerLayerZstd: "application/vnd.docker.image.rootfs.diff.tar.zstd",
	dockerForeignLayerGzip: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
} as const;

export type Compression = "uncompressed" | "gzip" | "zstd";

const layerCompression: Readonly<Record<string, Compression>> = {
	[mediaTypes.ociLayer]: "uncompressed",
	[mediaTypes.ociLayerGzip]: "gzip",
	[mediaTypes.ociLayerZstd]: "zstd",
	"application/vnd.oci.image.layer.nondistributable.v1.tar": "uncompressed",
	"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
	"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
	[mediaTypes.dockerLayer]: "uncompressed",
	[mediaTypes.dockerLayerGzip]: "gzip",
	[mediaTypes.dockerLayerZstd]: "zstd",
	[mediaTypes.dockerForeignLayerGzip]: "gzip",
};

/** How a layer of this media type is compressed; undefined if the type is not one of a layer. */
export function compressionOf(mediaType: string): Compression | undefined {
	return layerCompression[mediaType];
}

export function isIndexType(mediaType: string): boolean {
	return mediaType === mediaTypes.ociIndex || mediaType === mediaTypes.dockerManifestList;
}

export function isManifestType(mediaType: string): boolean {
	return mediaType === mediaTypes.ociManifest || mediaType === mediaTypes.dockerManifest;
}

/** The layer media type for a compression in the OCI or the Docker family. */
export function layerMediaType(compression: Compression, family: "oci" | "docker"): string {
	switch (compression) {
		case "uncompressed":
			return family === "oci" ? mediaTypes.ociLayer : mediaTypes.dockerLayer;
		case "gzip":
			return family === "oci" ? mediaTypes.ociLayerGzip : mediaTypes.dockerLayerGzip;
		case "zstd":
			return family === "oci" ? mediaTypes.ociLayerZstd : mediaTypes.dockerLayerZstd;
	}
}
