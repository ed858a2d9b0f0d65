import type {
	BuilderInfo,
	CallSignal,
	HistoryEvent,
	HistoryRequest,
	PruneRequest,
	UsageRecord,
	WorkerInfo,
} from "../client/client.ts";
import type { Definition } from "../llb/llb.ts";
import type { State } from "../llb/state.ts";
import type { ProgressEvent } from "../progress/progress.ts";
import type { RegistryCredentials } from "../session/session.ts";

/**
 * Building from a program: `connect` (index.ts) reaches a builder that runs, Slipway's or a real buildkitd; `createEngine` has one
 * in this process. Both give a `Builder`. All failures are `SlipwayError`s with a code, and with details that say where.
 */
export interface Builder extends AsyncDisposable {
	/** Begins at once. Disposing the builder cancels its builds; later ones are refused with `failed-precondition`. */
	build(options: BuildOptions): Build;
	info(options?: Partial<CallSignal>): Promise<BuilderInfo>;
	workers(options?: Partial<CallSignal>): Promise<readonly WorkerInfo[]>;
	/** Records of the cache; filters are containerd's, such as `type==regular`. */
	diskUsage(options?: FilterOptions): Promise<readonly UsageRecord[]>;
	/** Gives what was removed, as it is removed. */
	prune(options?: PruneRequest & Partial<CallSignal>): AsyncIterable<UsageRecord>;
	/** Builds that run and have run. */
	history(options?: HistoryRequest & Partial<CallSignal>): AsyncIterable<HistoryEvent>;
}

export interface FilterOptions extends Partial<CallSignal> {
	readonly filters?: readonly string[];
}

/**
 * A build under way. Its events can be read once, while it runs or after: they are kept until then, so read them or drop the
 * build. The end of the events is the end of the build; how it ended is told by `result` alone.
 */
export interface Build extends AsyncIterable<ProgressEvent> {
	/** Names it in the builder's history. */
	readonly ref: string;
	/**
	 * Rejects with a `SlipwayError`. What the program's own functions throw is its cause; its code is `unknown`, if they throw no
	 * `SlipwayError`. `canceled`: by the signal or since the builder was closed; `deadline-exceeded`: by `AbortSignal.timeout`.
	 * A rejection that is never looked at is no unhandled one.
	 */
	readonly result: Promise<BuildResult>;
}

export interface BuildResult {
	/** Of the manifest or index, where an image was made. */
	readonly digest: string | undefined;
	/** Of the image's config. */
	readonly configDigest: string | undefined;
	/** All that the exporters say: `containerimage.digest`, `image.name`, …. */
	readonly exporterResponse: Readonly<Record<string, string>>;
	/** For `dockerfile.call`: the answer, `result.json` and `result.txt`. */
	readonly metadata: Readonly<Record<string, Uint8Array>>;
}

export interface BuildOptions {
	/** What is built: this, or `definition`. */
	readonly dockerfile?: DockerfileOptions;
	/** A build graph, from `slipway/llb`. */
	readonly definition?: Definition | State;
	/** Directories by the names that `local()` sources have: paths, or files that there are none of. */
	readonly directories?: Readonly<Record<string, string | Files>>;
	/** Directories with an OCI layout, by the names that `oci-layout://` contexts and sources have. */
	readonly ociLayouts?: Readonly<Record<string, string>>;
	/** Default: the result stays in the cache. */
	readonly outputs?: readonly OutputOptions[];
	/** By id: the value, or what gives it when a step asks. At most 500 KiB. */
	readonly secrets?: Readonly<Record<string, Secret>>;
	/** Sockets of agents by id; `default` is what `RUN --mount=type=ssh` asks for. */
	readonly ssh?: Readonly<Record<string, string>>;
	/** Login for a registry's host. Default: those of Docker's configuration. */
	readonly credentials?: (host: string) => Promise<RegistryCredentials | undefined>;
	readonly cacheFrom?: readonly CacheOptions[];
	readonly cacheTo?: readonly CacheOptions[];
	/** `network.host`, `security.insecure`, `device`. */
	readonly allow?: readonly string[];
	/** Ends the build, also while functions of `Files` are awaited. */
	readonly signal?: AbortSignal;
}

/** Contents by path, as `src/main.js`; functions are called when the build begins. Modes are 0644, directories are made. */
export type Files = Readonly<Record<string, FileContent>>;

export type FileContent = string | Uint8Array | (() => Promise<string | Uint8Array>);

export type Secret = string | Uint8Array | (() => Promise<string | Uint8Array | undefined>);

export interface DockerfileOptions {
	/** A directory, files, or a URL of a git repository or archive that the builder fetches. Default: no context. */
	readonly context?: string | Files;
	/** Path of the Dockerfile. Default: `Dockerfile` in the context. */
	readonly file?: string;
	/** The Dockerfile itself, in place of a file. */
	readonly text?: string;
	readonly target?: string;
	readonly buildArgs?: Readonly<Record<string, string>>;
	readonly labels?: Readonly<Record<string, string>>;
	readonly platforms?: readonly string[];
	/** True, or the stages whose steps run again. */
	readonly noCache?: boolean | readonly string[];
	/** Ask registries even for images that are here. */
	readonly pull?: boolean;
	/** Named contexts: a directory, `docker-image://…`, `oci-layout://NAME@DIGEST`, a URL. */
	readonly contexts?: Readonly<Record<string, string>>;
	/** A question in place of a build. */
	readonly call?: "check" | "outline" | "targets";
	/** Other options of the frontend by their names, such as `add-hosts`. */
	readonly options?: Readonly<Record<string, string>>;
}

/** A result and where it goes. `attrs` are the exporter's own options, such as `compression`. */
export type OutputOptions =
	| {
			readonly type: "image";
			readonly name: string | readonly string[];
			readonly push?: boolean;
			readonly attrs?: Readonly<Record<string, string>>;
	  }
	| {
			readonly type: "oci" | "docker" | "tar";
			/** A file, or what takes the bytes. */
			readonly dest: string | ByteSink;
			readonly name?: string | readonly string[];
			readonly attrs?: Readonly<Record<string, string>>;
	  }
	| {
			readonly type: "local";
			/** A directory. */
			readonly dest: string;
			readonly attrs?: Readonly<Record<string, string>>;
	  };

/** Such as a `WritableStream`. */
export interface ByteSink {
	getWriter(): {
		write(chunk: Uint8Array): Promise<void>;
		close(): Promise<void>;
		abort(reason?: unknown): Promise<void>;
	};
}

/** `{ type: "registry", attrs: { ref: "…" } }`, `local` with `src` or `dest`, `inline`, `gha`, `s3`, `azblob`. */
export interface CacheOptions {
	readonly type: string;
	readonly attrs?: Readonly<Record<string, string>>;
}
