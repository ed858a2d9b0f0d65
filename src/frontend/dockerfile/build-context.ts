import { posix } from "node:path";
import { SlipwayError, wrap } from "../../errors/errors.ts";
import { definitionOutput } from "../../llb/definition-output.ts";
import { copy } from "../../llb/file-steps.ts";
import { parseGitRef } from "../../llb/git-ref.ts";
import { joinPath } from "../../llb/go-path.ts";
import type { Constraints, Definition, LocatedFile } from "../../llb/llb.ts";
import { http, type LocalOptions, local } from "../../llb/sources.ts";
import { type State, scratch, stateOf } from "../../llb/state.ts";
import type { Digest } from "../../oci/digest.ts";
import { parseIgnoreFile } from "../../patterns/ignore-file.ts";
import type { FrontendBridge, FrontendRef, FrontendRequest } from "../frontend.ts";
import { looksLikeArchive } from "./archive-header.ts";
import { parseGoBool } from "./go-number.ts";
import { type HostKeys, hostKeysOf } from "./host-keys.ts";

/**
 * Where the Dockerfile, the ignore file and the build context come from: the client's directories, a git repository, a
 * URL, or graphs that the client gives. Vertex names, filters and hints are BuildKit's, because clients show the first
 * and caches of transfers hang on the others.
 */
export interface BuildContext {
	/** Read at the first call. */
	readDockerfile(): Promise<DockerfileSource>;
	/** The patterns of the ignore file; none for contexts that are not local. */
	ignorePatterns(): Promise<readonly string[]>;
	/** Only these paths of a local context are transferred; none given: all. */
	mainContext(followPaths: readonly string[]): Promise<State>;
	/** The session of a local directory. */
	sessionOf(localName: string): string;
	/** Where the main context is remote, and a file that is an archive. */
	remoteContext(): Promise<RemoteContext | undefined>;
	/** Of the graphs that the client gives. */
	input(name: string): State | undefined;
}

export interface DockerfileSource {
	readonly file: LocatedFile;
	/** The step that warnings are shown under. */
	readonly vertex: Digest;
	/** How the file was got. */
	readonly definition: Definition;
}

export interface RemoteContext {
	readonly state: State;
	/** For http: what came, as a file system with one file. */
	readonly download:
		| { readonly ref: FrontendRef; readonly filename: string; readonly archive: boolean }
		| undefined;
}

const ignoreFileName = ".dockerignore";

interface Origin {
	/** Absent for a directory of the client. */
	readonly context: State | undefined;
	/** Absent: the directory of the client that is named `dockerfileName`. */
	readonly dockerfile: State | undefined;
	readonly filename: string;
	readonly dockerfileName: string;
	readonly remote: RemoteContext | undefined;
}

/** The client's name of the main context, also where an option names another key for its URL. */
const contextName = "context";

export function internalName(name: string): string {
	return `[internal] ${name}`;
}

/** A state's output as a graph that can be solved. */
export function readingDefinition(state: State): Definition {
	return state.marshal();
}

export function createBuildContext(request: FrontendRequest, bridge: FrontendBridge): BuildContext {
	const { options, signal } = request;
	let origin: Promise<Origin> | undefined;
	let ignore: Promise<readonly string[]> | undefined;
	let dockerfile: Promise<DockerfileSource> | undefined;
	/** `<Dockerfile>.dockerignore`, which stands before the context's own. */
	let ownIgnore: { readonly name: string; readonly data: Uint8Array } | undefined;

	const getOrigin = (): Promise<Origin> => {
		origin ??= findOrigin();
		return origin;
	};
	const sessionOf = (name: string): string => options[`local-sessionid:${name}`] ?? request.sessionId;
	const input = (name: string): State | undefined => {
		const definition = request.inputs.get(name);
		return definition === undefined ? undefined : stateOf(definitionOutput(definition));
	};
	const read = async (state: State): Promise<FrontendRef> =>
		await bridge.solve(readingDefinition(state), { evaluate: false, signal });

	async function findOrigin(): Promise<Origin> {
		const forced = options["dockerfilekey"];
		const base = {
			filename: options["filename"] ?? "Dockerfile",
			dockerfileName: forced ?? "dockerfile",
		};
		const url = options[options["contextkey"] ?? contextName] ?? "";
		const found = await findRemote(url);
		const scope = (state: State): State => {
			const subdir = options["contextsubdir"];
			return subdir === undefined ? state : scopeTo(state, subdir);
		};
		if (found === undefined) {
			const context = input(contextName);
			const own = forced === undefined ? input(base.dockerfileName) : undefined;
			return {
				...base,
				context: context === undefined ? undefined : scope(context),
				dockerfile: own,
				remote: undefined,
			};
		}
		const plainFile = found.download !== undefined && !found.download.archive;
		return {
			...base,
			...(plainFile ? { filename: found.download.filename } : {}),
			context: scope(found.context),
			dockerfile: forced === undefined ? found.context : undefined,
			remote: { state: found.state, download: found.download },
		};
	}

	async function findRemote(url: string): Promise<(RemoteContext & { readonly context: State }) | undefined> {
		const keepGitDir = parseGoBool(options["build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR"] ?? "");
		const commitTimes = (options["build-arg:SOURCE_DATE_EPOCH"] ?? "") !== "";
		const repository = await gitContext(url, hostKeysOf(bridge, signal), {
			...(keepGitDir === undefined ? {} : { keepGitDir }),
			...(commitTimes ? { mtime: "commit" } : {}),
		});
		if (repository !== undefined) {
			return { state: repository, context: repository, download: undefined };
		}
		if (!isHttpUrl(url)) {
			return undefined;
		}
		const filename = "context";
		const state = http(url, { filename, name: internalName("load remote build context") });
		let ref: FrontendRef;
		try {
			ref = await read(state);
		} catch (error) {
			throw wrap(error, "failed to resolve httpcontext");
		}
		let data: Uint8Array;
		try {
			data = await ref.readFile(filename, { signal, maxBytes: 1024 });
		} catch (error) {
			throw wrap(error, "failed to read downloaded context");
		}
		const archive = looksLikeArchive(data.subarray(0, 1024));
		const context = archive
			? scratch().file(copy(state, joinPath("/", filename), "/", { attemptUnpack: true }))
			: state;
		return { state, context, download: { ref, filename, archive } };
	}

	async function loadDockerfile(): Promise<DockerfileSource> {
		const { dockerfile: given, filename, dockerfileName } = await getOrigin();
		const lower = posix.basename(filename) === "Dockerfile" ? lowerCaseName(filename) : undefined;
		const state =
			given ??
			local(dockerfileName, {
				followPaths: [filename, `${filename}.dockerignore`, ...(lower === undefined ? [] : [lower])],
				sessionId: sessionOf(dockerfileName),
				sharedKeyHint: dockerfileName,
				name: internalName(`load build definition from ${filename}`),
				differ: { kind: "none", required: false },
			});
		const definition = readingDefinition(state);
		let ref: FrontendRef;
		try {
			ref = await bridge.solve(definition, { evaluate: false, signal });
		} catch (error) {
			throw wrap(error, "failed to resolve dockerfile");
		}
		const data = await readWithFallback(ref, filename, lower);
		const name = `${filename}.dockerignore`;
		const ignoreData = await readIfThere(ref, name);
		if (ignoreData !== undefined) {
			ownIgnore = { name, data: ignoreData };
		}
		const { output } = state;
		return {
			file: { filename, data, language: "Dockerfile", ...(output === undefined ? {} : { output }) },
			vertex: headOf(definition),
			definition,
		};
	}

	async function readWithFallback(
		ref: FrontendRef,
		filename: string,
		lower: string | undefined,
	): Promise<Uint8Array> {
		try {
			return await ref.readFile(filename, { signal });
		} catch (error) {
			const other = lower === undefined ? undefined : await readIfThere(ref, lower);
			if (other === undefined) {
				throw wrap(error, "failed to read dockerfile");
			}
			return other;
		}
	}

	/** As in BuildKit any failure counts as absence, but not the end of the build. */
	async function readIfThere(ref: FrontendRef, path: string): Promise<Uint8Array | undefined> {
		try {
			return await ref.readFile(path, { signal });
		} catch (error) {
			signal.throwIfAborted();
			if (error instanceof SlipwayError) {
				return undefined;
			}
			throw error;
		}
	}

	async function loadIgnorePatterns(): Promise<readonly string[]> {
		if ((await getOrigin()).context !== undefined) {
			return [];
		}
		await dockerfile;
		let name = ignoreFileName;
		let data: Uint8Array | undefined;
		if (ownIgnore !== undefined) {
			({ name, data } = ownIgnore);
		} else {
			const ref = await read(
				local(contextName, {
					sessionId: sessionOf(contextName),
					followPaths: [ignoreFileName],
					sharedKeyHint: `${contextName}-${ignoreFileName}`,
					name: internalName(`load ${ignoreFileName}`),
					differ: { kind: "none", required: false },
				}),
			);
			data = await readIfThere(ref, ignoreFileName);
		}
		try {
			return data === undefined ? [] : parseIgnoreFile(data);
		} catch (error) {
			throw wrap(error, `failed parsing ${name}`);
		}
	}

	const ignorePatterns = (): Promise<readonly string[]> => {
		ignore ??= loadIgnorePatterns();
		return ignore;
	};

	return {
		readDockerfile() {
			dockerfile ??= loadDockerfile();
			return dockerfile;
		},
		ignorePatterns,
		async mainContext(followPaths) {
			const { context } = await getOrigin();
			if (context !== undefined) {
				return context;
			}
			let excludePatterns: readonly string[];
			try {
				excludePatterns = await ignorePatterns();
			} catch (error) {
				throw wrap(error, "failed to read dockerignore patterns");
			}
			const options: LocalOptions = {
				sessionId: sessionOf(contextName),
				excludePatterns,
				sharedKeyHint: contextName,
				name: internalName("load build context"),
				followPaths,
			};
			return local(contextName, options);
		},
		sessionOf,
		async remoteContext() {
			return (await getOrigin()).remote;
		},
		input,
	};
}

export interface GitContextOptions {
	readonly keepGitDir?: boolean;
	readonly mtime?: "checkout" | "commit";
}

/** Undefined if the text names no repository; rejects for one whose query can't be understood. */
export async function gitContext(
	text: string,
	hostKeys: HostKeys,
	options: GitContextOptions = {},
): Promise<State | undefined> {
	const ref = parseGitRef(text);
	if (ref === undefined) {
		return undefined;
	}
	const mtime = ref.mtime ?? options.mtime;
	const constraints: Constraints = { name: internalName(`load git source ${text}`) };
	const state = hostKeys.git(ref.remote, {
		...constraints,
		ref: ref.ref,
		subdir: ref.subdir,
		keepGitDir: ref.keepGitDir === true || options.keepGitDir === true,
		checksum: ref.checksum,
		skipSubmodules: ref.submodules === false,
		...(mtime === undefined ? {} : { mtime }),
		fetchByCommit: ref.fetchByCommit,
	});
	await hostKeys.settled();
	return state;
}

export function isHttpUrl(text: string): boolean {
	return /^https?:\/\//.test(text);
}

function scopeTo(state: State, subdir: string): State {
	return scratch().file(copy(state, subdir, "/", { dirContentsOnly: true }));
}

function lowerCaseName(filename: string): string {
	return joinPath(posix.dirname(filename), "dockerfile");
}

/** The op that the terminal one takes. */
function headOf({ ops }: Definition): Digest {
	const head = ops.at(-2);
	if (head === undefined) {
		throw new SlipwayError("invalid-argument", "the Dockerfile is to be read from an empty file system");
	}
	return head.digest;
}
