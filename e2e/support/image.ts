import { mkdirSync, mkdtempSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { tool } from "./tools.ts";

export interface BuiltImage {
	readonly manifest: {
		readonly mediaType: string;
		readonly config: { readonly digest: string };
		readonly layers: readonly {
			readonly digest: string;
			readonly mediaType: string;
			readonly size: number;
		}[];
	};
	// biome-ignore lint/suspicious/noExplicitAny: tests look into a foreign document
	readonly config: any;
	/** Lines of `tar -tv --numeric-owner` for each layer, base first. */
	layerListing(index: number): readonly string[];
	/** What a file of a layer holds. */
	layerFile(index: number, path: string): string;
}

/** Reads an OCI tar that a build wrote, by other people's tools. */
export function readImage(archive: string, scratch: string): BuiltImage {
	const dir = mkdtempSync(join(scratch, "image-"));
	tool("tar", ["-C", dir, "-xf", archive]);
	return readLayout(dir);
}

export function readLayout(dir: string): BuiltImage {
	const index = json(join(dir, "index.json"));
	const blob = (digest: string): string => join(dir, "blobs", ...digest.split(":"));
	const manifest = json(blob(index.manifests[0].digest));
	const archive = (at: number): string => blob(manifest.layers[at].digest);
	return {
		manifest,
		config: json(blob(manifest.config.digest)),
		layerListing: (at) =>
			tool("tar", ["--numeric-owner", "-tvf", archive(at)])
				.trim()
				.split("\n"),
		layerFile: (at, path) => tool("tar", ["-xOf", archive(at), path]),
	};
}

/** The image's whole file system, by umoci. */
export function unpackImage(layout: string, tag: string, dest: string): string {
	mkdirSync(dest, { recursive: true });
	tool("umoci", ["unpack", "--image", `${layout}:${tag}`, join(dest, "bundle")]);
	return join(dest, "bundle/rootfs");
}

// biome-ignore lint/suspicious/noExplicitAny: tests look into a foreign document
function json(path: string): any {
	return JSON.parse(readFileSync(path, "utf8"));
}

/** All regular files below a directory, relative, sorted. */
export function filesBelow(dir: string): readonly string[] {
	return readdirSync(dir, { recursive: true, withFileTypes: true })
		.filter((entry) => !entry.isDirectory())
		.map((entry) => join(entry.parentPath, entry.name).slice(dir.length + 1))
		.sort();
}
