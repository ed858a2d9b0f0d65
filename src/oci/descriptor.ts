import type { Digest } from "./digest.ts";
import type { Platform } from "./platform.ts";

/** OCI image spec, descriptor.md. Property order is the order in which the spec's Go types write JSON. */
export interface Descriptor {
	readonly mediaType: string;
	readonly digest: Digest;
	/** Bytes. */
	readonly size: number;
	readonly urls?: readonly string[];
	readonly annotations?: Readonly<Record<string, string>>;
	/** Base64 of the content itself. */
	readonly data?: string;
	readonly platform?: Platform;
	readonly artifactType?: string;
}
