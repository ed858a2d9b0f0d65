import type { Archiver } from "../archive/archive.ts";
import type { ThreadPool } from "../async/pool.ts";
import type { ImmutableRef, LayerBlob } from "../cache/cache.ts";
import type { BlobSources } from "../content/blob-sources.ts";
import type { ContentStore, LocalContent } from "../content/content.ts";
import type { ImageStore } from "../content/image-store.ts";
import type { Digest } from "../oci/digest.ts";
import type { Platform } from "../oci/platform.ts";
import type { Reference } from "../oci/reference.ts";
import type { Repository } from "../registry/registry.ts";
import type { Session } from "../session/session.ts";
import type { StepContext } from "../solver/solver.ts";
import type { MountSpec } from "../sys/sys.ts";

/**
 * What a frontend made, whichever it was: trees by key or one without, and metadata in BuildKit's keys (exptypes), which say what
 * platform a tree is for and which image config goes with it. `resolveSource` (export-source.ts) reads them.
 */
export interface BuildResult {
	/** The tree of a result without keys; undefined is the empty one. */
	readonly ref: ImmutableRef | undefined;
	/** Trees by platform ID. One that has entries becomes an index (or a directory per platform), even with a single one. */
	readonly refs: ReadonlyMap<string, ImmutableRef | undefined>;
	/** `refs.platforms`, `containerimage.config`, `containerimage.config/<platform>`, `source.date.epoch`, …. */
	readonly metadata: Readonly<Record<string, Uint8Array>>;
}

/** One platform of a result, with its documents. */
export interface PlatformResult {
	/** `linux/amd64`; with OS version where there is one. */
	readonly id: string;
	readonly platform: Platform;
	readonly ref: ImmutableRef | undefined;
	/** JSON of the image config; undefined gives the default one. */
	readonly imageConfig: Uint8Array | undefined;
	/** JSON of the base image's config, whose history is left as it is. */
	readonly baseImageConfig: Uint8Array | undefined;
}

/** Delivers a result in one form. Options were parsed when the exporter was made, before the build began. */
export interface Exporter {
	/** Shown as the step's name: `exporting to oci image format`. */
	readonly name: string;
	/**
	 * Makes and delivers the output. The answer is the exporter's response (spec/exporters-caches.md, 1.5):
	 * `containerimage.digest`, `image.name`, ….
	 */
	export(result: BuildResult, context: ExportContext): Promise<Readonly<Record<string, string>>>;
}

export interface ExportContext extends StepContext {
	readonly session: Session;
	/** Gets the documents of images: manifests, configs. */
	readonly keepDocument?: (digest: Digest, document: Uint8Array) => void;
	/** Position among the exporters of the build; selects the session's output. */
	readonly index: number;
	/** The cache that an image with these layers carries in its config; absent unless that was asked for. */
	readonly inlineCache?: (
		ref: ImmutableRef,
		layers: readonly LayerBlob[],
		context: StepContext,
	) => Promise<Uint8Array | undefined>;
}

/** Makes an exporter of a type; throws `invalid-argument` with BuildKit's message for an option that is wrong or unknown. */
export type ExporterFactory = (attrs: Readonly<Record<string, string>>) => Exporter;

/** What exporters work with; `exporterFactories` in exporter-factories.ts makes them all. */
export interface ExporterServices {
	readonly content: ContentStore & LocalContent;
	readonly images: ImageStore;
	/** Which repositories have which blobs: a push mounts from them, and adds what it sent. */
	readonly sources: BlobSources;
	/** The repository to push to, with the logins of the client. */
	readonly openRepository: (
		name: Reference,
		options: { readonly session: Session; readonly insecure: boolean },
	) => Repository;
	readonly archiver: Archiver;
	readonly pool: ThreadPool;
	/** Makes a ref's mounts a directory of this host, for as long as it is not disposed. */
	readonly mountTree: (mounts: readonly MountSpec[]) => Disposable & { readonly path: string };
	/** Milliseconds since 1970; default `Date.now`. */
	readonly now?: () => number;
}
