/** OCI image spec, image-index.md, `platform`. */
export interface Platform {
	readonly architecture: string;
	readonly os: string;
	readonly "os.version"?: string;
	readonly "os.features"?: readonly string[];
	readonly variant?: string;
}
