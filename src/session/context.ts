import { existsSync, readdirSync, statSync } from "node:fs";
import { basename, dirname, isAbsolute, resolve } from "node:path";
import { SlipwayError, wrap } from "../errors/errors.ts";
import {
	type ContextArchiver,
	contextFromStdin,
	dockerfileFromStdin,
	dockerfileFromText,
} from "./stdin-context.ts";

export interface BuildContextRequest {
	/** A directory, `-` for stdin, or a URL that the builder fetches. */
	readonly context: string;
	/** What relative paths start from; default: the process's own directory. */
	readonly cwd?: string;
	/** `--file`: a path, `-` for stdin. Default: the context's `Dockerfile`. */
	readonly dockerfile?: string;
	/** The text of the Dockerfile itself; `dockerfile` is not looked at then. */
	readonly dockerfileText?: string;
	readonly stdin: AsyncIterable<Uint8Array | string>;
	/** Unpacks an archive from stdin. */
	readonly archiver: ContextArchiver;
	readonly signal: AbortSignal;
}

/** Where a build takes its files from. Disposing it removes what was unpacked or written for it. */
export interface BuildContext extends AsyncDisposable {
	/** For the Dockerfile frontend: `filename`, `context`, `dockerfilekey`. */
	readonly options: Readonly<Record<string, string>>;
	/** For the session: `context` and `dockerfile`, as far as they are on this side. */
	readonly directories: Readonly<Record<string, { readonly path: string }>>;
}

/** Prepares a build's context as buildx does, with its messages. */
export async function openBuildContext(request: BuildContextRequest): Promise<BuildContext> {
	const { context } = request;
	if (context === "") {
		throw invalid('please specify build context (e.g. "." for the current directory)');
	}
	if (/^https?:\/\//.test(request.dockerfile ?? "")) {
		throw new SlipwayError(
			"unimplemented",
			`a Dockerfile from a URL is not supported: ${request.dockerfile}`,
		);
	}
	if (context === "-") {
		if (request.dockerfile === "-") {
			throw invalid("invalid argument: can't use stdin for both build context and dockerfile");
		}
		return fromStdin(request);
	}
	if (isDirectory(resolve(request.cwd ?? "", context))) {
		return fromDirectory(request);
	}
	if (isRemoteContext(context)) {
		return fromRemote(request);
	}
	if (existsSync(resolve(request.cwd ?? "", context))) {
		throw invalid(
			`unable to prepare context: ${JSON.stringify(context)} is not a directory; a Dockerfile of another name is given with --file`,
		);
	}
	throw new SlipwayError("not-found", `unable to prepare context: path ${JSON.stringify(context)} not found`);
}

/** URLs of git repositories and of files, as Docker tells them from paths. */
export function isRemoteContext(text: string): boolean {
	return (
		/^(https?|git|ssh):\/\//.test(text) ||
		text.startsWith("github.com/") ||
		/^[A-Za-z0-9_][\w.+-]*@[\w.-]+:(?!\/\/).+/.test(text)
	);
}

async function fromStdin(request: BuildContextRequest): Promise<BuildContext> {
	await using cleanup = new AsyncDisposableStack();
	const files = cleanup.use(
		await contextFromStdin({
			stdin: request.stdin,
			dockerfileGiven: request.dockerfile !== undefined || request.dockerfileText !== undefined,
			archiver: request.archiver,
			signal: request.signal,
		}),
	);
	if (request.dockerfileText !== undefined) {
		const written = cleanup.use(dockerfileFromText(request.dockerfileText));
		return finish(cleanup, { context: files.path, dockerfile: written.path, key: true });
	}
	if (files.dockerfileDirectory !== undefined) {
		return finish(cleanup, { context: files.path, dockerfile: files.dockerfileDirectory, key: true });
	}
	// The Dockerfile is in the archive, and so is what `--file` names.
	return finish(cleanup, {
		context: files.path,
		dockerfile: files.path,
		...(request.dockerfile === undefined ? {} : { name: request.dockerfile }),
	});
}

async function fromDirectory(request: BuildContextRequest): Promise<BuildContext> {
	await using cleanup = new AsyncDisposableStack();
	const context = resolve(request.cwd ?? "", request.context);
	const given = await givenDockerfile(request, cleanup);
	if (given !== undefined) {
		return finish(cleanup, { context, dockerfile: given, key: true });
	}
	const { dockerfile } = request;
	if (dockerfile === undefined) {
		return finish(cleanup, { context, dockerfile: context });
	}
	return finish(cleanup, {
		context,
		dockerfile: directoryOf(dockerfile, request.cwd),
		name: basename(dockerfile),
	});
}

async function fromRemote(request: BuildContextRequest): Promise<BuildContext> {
	await using cleanup = new AsyncDisposableStack();
	const options = { context: request.context };
	const given = await givenDockerfile(request, cleanup);
	if (given !== undefined) {
		return finish(cleanup, { dockerfile: given, key: true, options });
	}
	const { dockerfile } = request;
	if (dockerfile !== undefined && isAbsolute(dockerfile)) {
		return finish(cleanup, {
			dockerfile: directoryOf(dockerfile, request.cwd),
			name: basename(dockerfile),
			key: true,
			options,
		});
	}
	// A path in what the builder fetches.
	return finish(cleanup, { options, ...(dockerfile === undefined ? {} : { name: dockerfile }) });
}

/** The directory of a Dockerfile that does not come from a file. */
async function givenDockerfile(
	{ dockerfile, dockerfileText, stdin, signal }: BuildContextRequest,
	cleanup: AsyncDisposableStack,
): Promise<string | undefined> {
	if (dockerfileText !== undefined) {
		return cleanup.use(dockerfileFromText(dockerfileText)).path;
	}
	if (dockerfile === "-") {
		return cleanup.use(await dockerfileFromStdin({ stdin, signal })).path;
	}
	return undefined;
}

interface Parts {
	readonly context?: string;
	readonly dockerfile?: string;
	readonly name?: string;
	/** The Dockerfile is not in the context: the frontend must be told. */
	readonly key?: boolean;
	readonly options?: Readonly<Record<string, string>>;
}

function finish(cleanup: AsyncDisposableStack, parts: Parts): BuildContext {
	const name = parts.name ?? "Dockerfile";
	const options = {
		...parts.options,
		filename: parts.dockerfile === undefined ? name : existingName(parts.dockerfile, name),
		...(parts.key === true ? { dockerfilekey: "dockerfile" } : {}),
	};
	const directories = {
		...(parts.context === undefined ? {} : { context: { path: parts.context } }),
		...(parts.dockerfile === undefined ? {} : { dockerfile: { path: parts.dockerfile } }),
	};
	const kept = cleanup.move();
	return { options, directories, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/** `dockerfile` where there is no `Dockerfile`; asked of the list of names, as file systems may not tell the two apart. */
function existingName(directory: string, name: string): string {
	if (name !== "Dockerfile") {
		return name;
	}
	try {
		const names = readdirSync(directory);
		return !names.includes(name) && names.includes("dockerfile") ? "dockerfile" : name;
	} catch {
		// Whoever reads the file says what is wrong with the directory.
		return name;
	}
}

function directoryOf(dockerfile: string, cwd = ""): string {
	const directory = resolve(cwd, dirname(dockerfile));
	if (!isDirectory(directory)) {
		throw new SlipwayError(
			"not-found",
			`unable to prepare context: directory of Dockerfile ${JSON.stringify(dockerfile)} not found`,
		);
	}
	return directory;
}

function isDirectory(path: string): boolean {
	try {
		return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
	} catch (thrown) {
		const error = wrap(thrown, "unable to prepare context");
		if (error.code === "not-found") {
			return false;
		}
		throw error;
	}
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
