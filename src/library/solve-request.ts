import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import type { SolveRequest } from "../client/client.ts";
import { openOciLayout } from "../content/oci-layout-reader.ts";
import { SlipwayError, wrap } from "../errors/errors.ts";
import { State } from "../llb/state.ts";
import { newIdentity } from "../oci/identity.ts";
import { isRemoteContext } from "../session/context.ts";
import { createDockerAuth } from "../session/docker-auth.ts";
import type { LocalSessionOptions } from "../session/local-session.ts";
import { directoryOutput, fileOutput } from "../session/outputs.ts";
import { maxSecretBytes } from "../session/secrets.ts";
import type { SessionOutput, SessionSecrets } from "../session/session.ts";
import { createSshAgents } from "../session/ssh-agent.ts";
import { dockerfileFromText } from "../session/stdin-context.ts";
import type { BuildOptions, ByteSink, DockerfileOptions, Files, OutputOptions, Secret } from "./library.ts";

/** A build as builders want it. Disposing it removes what was written for it. */
export interface PreparedBuild extends AsyncDisposable {
	readonly request: SolveRequest;
	readonly lends: LocalSessionOptions;
}

/** `ref` names the build. Rejects with `invalid-argument` for what does not go together. */
export async function prepareBuild(ref: string, options: BuildOptions): Promise<PreparedBuild> {
	options.signal?.throwIfAborted();
	if ((options.dockerfile === undefined) === (options.definition === undefined)) {
		throw new SlipwayError("invalid-argument", "a build needs either a dockerfile or a definition");
	}
	await using cleanup = new AsyncDisposableStack();
	const directories: Record<string, { readonly path: string }> = {};
	for (const [name, files] of Object.entries(options.directories ?? {})) {
		directories[name] = { path: await directoryOf(files, { cleanup, signal: options.signal }) };
	}
	const { definition, dockerfile } = options;
	const frontendOptions =
		dockerfile === undefined
			? {}
			: await frontendOptionsOf(dockerfile, directories, { cleanup, signal: options.signal });
	const outputs = options.outputs ?? [];
	const cacheEntries = (list: BuildOptions["cacheFrom"] = []) =>
		list.map(({ type, attrs = {} }) => ({ type, attrs }));
	const held = cleanup.move();
	return {
		request: {
			ref,
			frontend: dockerfile === undefined ? undefined : "dockerfile.v0",
			frontendOptions,
			frontendInputs: new Map(),
			definition: definition instanceof State ? definition.marshal() : definition,
			exporters: outputs.map((each) => ({ type: each.type, attrs: attrsOf(each) })),
			cacheExports: cacheEntries(options.cacheTo),
			cacheImports: cacheEntries(options.cacheFrom),
			entitlements: options.allow ?? [],
		},
		lends: {
			id: newIdentity(),
			sharedKey: `${hostname()}:${directories["context"]?.path ?? process.cwd()}`,
			directories,
			contentStores: Object.fromEntries(
				Object.entries(options.ociLayouts ?? {}).map(([name, path]) => [name, openOciLayout(resolve(path))]),
			),
			auth:
				options.credentials === undefined
					? createDockerAuth({ env: process.env })
					: { credentials: options.credentials },
			secrets: secretsOf(options.secrets ?? {}),
			...(options.ssh === undefined
				? {}
				: {
						ssh: createSshAgents(
							Object.entries(options.ssh).map(([id, socket]) => `${id}=${socket}`),
							{ env: process.env },
						),
					}),
			outputs: outputs.map(outputOf),
		},
		[Symbol.asyncDispose]: () => held.disposeAsync(),
	};
}

interface Preparation {
	/** Removes what is written. */
	readonly cleanup: AsyncDisposableStack;
	readonly signal: AbortSignal | undefined;
}

/** Functions of the program know no signal: what they give too late is dropped. */
async function beforeAbort<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
	if (signal === undefined) {
		return await work;
	}
	const aborted = Promise.withResolvers<never>();
	const abort = (): void => aborted.reject(signal.reason);
	signal.addEventListener("abort", abort, { once: true });
	try {
		return await Promise.race([work, aborted.promise]);
	} finally {
		signal.removeEventListener("abort", abort);
	}
}

/** The path of a directory, or of a new one with these files. */
async function directoryOf(files: string | Files, { cleanup, signal }: Preparation): Promise<string> {
	if (typeof files === "string") {
		return resolve(files);
	}
	const directory = mkdtempSync(join(tmpdir(), "slipway-files-"));
	cleanup.defer(() => rmSync(directory, { recursive: true, force: true }));
	for (const [name, content] of Object.entries(files)) {
		const path = join(directory, name);
		if (name === "" || !path.startsWith(`${directory}/`) || path.endsWith("/")) {
			throw new SlipwayError(
				"invalid-argument",
				`invalid name of a file ${JSON.stringify(name)}: use a relative path`,
			);
		}
		const bytes = typeof content === "function" ? await beforeAbort(content(), signal) : content;
		try {
			mkdirSync(dirname(path), { recursive: true });
			writeFileSync(path, bytes, { mode: 0o644 });
		} catch (error) {
			throw wrap(error, `file ${JSON.stringify(name)}`, { code: "invalid-argument" });
		}
	}
	return directory;
}

async function frontendOptionsOf(
	dockerfile: DockerfileOptions,
	directories: Record<string, { readonly path: string }>,
	preparation: Preparation,
): Promise<Readonly<Record<string, string>>> {
	const options: Record<string, string> = { ...dockerfile.options };
	const { context: given, file, text } = dockerfile;
	const context = given === undefined ? undefined : await contextOf(given, preparation);
	if (file !== undefined && text !== undefined) {
		throw new SlipwayError("invalid-argument", "a dockerfile is given by file or by text, not by both");
	}
	const isRemote = context !== undefined && isRemoteContext(context);
	if (isRemote) {
		options["context"] = context;
	} else if (context !== undefined) {
		directories["context"] = { path: resolve(context) };
	}
	if (text !== undefined) {
		const written = preparation.cleanup.use(dockerfileFromText(text));
		directories["dockerfile"] = { path: written.path };
		options["dockerfilekey"] = "dockerfile";
		options["filename"] = "Dockerfile";
	} else if (file !== undefined && !isRemote) {
		directories["dockerfile"] = { path: resolve(dirname(file)) };
		options["filename"] = basename(file);
	} else if (file !== undefined) {
		options["filename"] = file;
	} else if (!isRemote) {
		if (context === undefined) {
			throw new SlipwayError("invalid-argument", "a dockerfile needs a context, a file or a text");
		}
		directories["dockerfile"] = { path: resolve(context) };
	}
	if (context === undefined) {
		// Steps that copy from it find it empty, and nothing of the machine is lent by accident.
		directories["context"] = { path: await directoryOf({}, preparation) };
	}
	const add = (prefix: string, values: Readonly<Record<string, string>> = {}): void => {
		for (const [name, value] of Object.entries(values)) {
			options[`${prefix}:${name}`] = value;
		}
	};
	add("build-arg", dockerfile.buildArgs);
	add("label", dockerfile.labels);
	for (const [name, value] of Object.entries(dockerfile.contexts ?? {})) {
		if (/^(?:docker-image|oci-layout|target|input):/.test(value) || isRemoteContext(value)) {
			options[`context:${name}`] = value;
		} else {
			directories[`context:${name}`] = { path: resolve(value) };
			options[`context:${name}`] = `local:context:${name}`;
		}
	}
	if (dockerfile.target !== undefined) {
		options["target"] = dockerfile.target;
	}
	if (dockerfile.platforms !== undefined) {
		options["platform"] = dockerfile.platforms.join(",");
	}
	if (dockerfile.noCache === true) {
		options["no-cache"] = "";
	} else if (Array.isArray(dockerfile.noCache)) {
		options["no-cache"] = dockerfile.noCache.join(",");
	}
	if (dockerfile.pull === true) {
		options["image-resolve-mode"] = "pull";
	}
	if (dockerfile.call !== undefined) {
		options["requestid"] = `frontend.${dockerfile.call === "check" ? "lint" : dockerfile.call}`;
		options["frontend.caps"] = "moby.buildkit.frontend.subrequests";
	}
	return options;
}

async function contextOf(context: string | Files, preparation: Preparation): Promise<string> {
	return typeof context === "string" ? context : await directoryOf(context, preparation);
}

function secretsOf(secrets: Readonly<Record<string, Secret>>): SessionSecrets {
	return {
		async secret(id) {
			const secret = Object.hasOwn(secrets, id) ? secrets[id] : undefined;
			const value = typeof secret === "function" ? await secret() : secret;
			const bytes = typeof value === "string" ? new TextEncoder().encode(value) : value;
			if (bytes !== undefined && bytes.length > maxSecretBytes) {
				throw new SlipwayError("invalid-argument", `secret ${id} too big. max size 500KiB`);
			}
			return bytes;
		},
	};
}

function attrsOf(output: OutputOptions): Readonly<Record<string, string>> {
	const name = output.type === "local" ? undefined : output.name;
	return {
		...output.attrs,
		...(name === undefined ? {} : { name: typeof name === "string" ? name : name.join(",") }),
		...(output.type === "image" && output.push === true ? { push: "true" } : {}),
	};
}

function outputOf(output: OutputOptions): SessionOutput | undefined {
	switch (output.type) {
		case "image":
			return undefined;
		case "local":
			return directoryOutput(resolve(output.dest), output.attrs?.["mode"] === "delete" ? "delete" : "copy");
		default:
			return typeof output.dest === "string" ? fileOutput(resolve(output.dest)) : sinkOutput(output.dest);
	}
}

function sinkOutput(sink: ByteSink): SessionOutput {
	return {
		kind: "stream",
		async open() {
			const writer = sink.getWriter();
			return {
				fd: undefined,
				write: (chunk) => writer.write(chunk),
				close: () => writer.close(),
				abort: () => writer.abort(),
			};
		},
	};
}
