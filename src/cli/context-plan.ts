import { type Stats, statSync } from "node:fs";
import { resolve } from "node:path";
import type { ContentReader } from "../content/content.ts";
import { openOciLayout } from "../content/oci-layout-reader.ts";
import { contextArchiver } from "../daemon/context-archiver.ts";
import { SlipwayError, wrap } from "../errors/errors.ts";
import { parseDigest } from "../oci/digest.ts";
import { familiarReference, parseReference } from "../oci/reference.ts";
import { isRemoteContext, openBuildContext } from "../session/context.ts";
import { keyValues } from "./build-values.ts";
import type { Terminal } from "./terminal.ts";

export interface ContextRequest {
	/** A directory, `-`, or a URL. */
	readonly context: string;
	readonly cwd: string;
	/** `--file`. */
	readonly dockerfile: string | undefined;
	/** `--build-context`, as `name=value`. */
	readonly named: readonly string[];
	readonly stdin: () => Terminal["stdin"];
	readonly signal: AbortSignal;
}

/** What the frontend is told of the contexts, and what the session lends for them. Disposing it removes what was unpacked. */
export interface ContextPlan extends AsyncDisposable {
	readonly options: Readonly<Record<string, string>>;
	readonly directories: Readonly<Record<string, { readonly path: string }>>;
	readonly contentStores: Readonly<Record<string, ContentReader>>;
	/** Tells this context from others of the same user. */
	readonly sharedName: string;
}

export async function planContexts(request: ContextRequest): Promise<ContextPlan> {
	const options: Record<string, string> = {};
	const directories: Record<string, { readonly path: string }> = {};
	const contentStores: Record<string, ContentReader> = {};
	await using stack = new AsyncDisposableStack();
	const usesStdin = request.context === "-" || request.dockerfile === "-";
	const main = stack.use(
		await openBuildContext({
			context: request.context,
			cwd: request.cwd,
			...(request.dockerfile === undefined ? {} : { dockerfile: request.dockerfile }),
			stdin: usesStdin ? (request.stdin() as AsyncIterable<Uint8Array>) : nothing(),
			archiver: contextArchiver,
			signal: request.signal,
		}),
	);
	Object.assign(options, main.options);
	Object.assign(directories, main.directories);
	for (const [name, value] of keyValues("build-context", request.named)) {
		if (value === "") {
			throw new SlipwayError(
				"invalid-argument",
				`build context ${name} has no place: use --build-context ${name}=DIRECTORY, or a URL, docker-image:// or oci-layout:// after the =`,
			);
		}
		const key = `context:${contextName(name)}`;
		if (value.startsWith("oci-layout://")) {
			const store = `store${Object.keys(contentStores).length}`;
			const { digest, reader } = openLayout(value.slice("oci-layout://".length), request.cwd);
			contentStores[store] = reader;
			options[key] = `oci-layout://${store}@${digest}`;
		} else if (isRemote(value)) {
			options[key] = value;
		} else {
			const path = resolve(request.cwd, value);
			requireDirectory(name, path);
			// The names of the main context's own directories are taken.
			const directory = name === "context" || name === "dockerfile" ? `_${name}` : name;
			directories[directory] = { path };
			options[key] = `local:${directory}`;
		}
	}
	const held = stack.move();
	return {
		options,
		directories,
		contentStores,
		sharedName: directories["context"]?.path ?? request.context,
		[Symbol.asyncDispose]: () => held.disposeAsync(),
	};
}

async function* nothing(): AsyncGenerator<Uint8Array> {}

/** A build need not use a context, but whoever names one means something that exists. */
function requireDirectory(name: string, path: string): void {
	let found: Stats | undefined;
	try {
		found = statSync(path, { throwIfNoEntry: false });
	} catch (error) {
		throw wrap(error, `failed to get build context ${name}`);
	}
	if (found === undefined) {
		throw new SlipwayError("not-found", `failed to get build context ${name}: path ${path} not found`);
	}
	if (!found.isDirectory()) {
		throw new SlipwayError(
			"invalid-argument",
			`failed to get build context ${name}: ${path} is not a directory`,
		);
	}
}

function contextName(name: string): string {
	try {
		return familiarReference(parseReference(name)).replace(/:latest$/, "");
	} catch (error) {
		throw new SlipwayError("invalid-argument", `invalid context name ${name}`, { cause: error });
	}
}

function isRemote(value: string): boolean {
	if (value.startsWith("target:")) {
		throw new SlipwayError(
			"invalid-argument",
			`build context ${value}: targets of other builds exist in bake files only`,
		);
	}
	return value.startsWith("docker-image://") || isRemoteContext(value);
}

/** `path[:tag][@digest]`: without either, the layout's only image. */
function openLayout(text: string, cwd: string): { readonly digest: string; readonly reader: ContentReader } {
	const at = text.lastIndexOf("@");
	const named = at === -1 ? text : text.slice(0, at);
	const colon = named.indexOf(":", named.lastIndexOf("/"));
	const path = resolve(cwd, colon === -1 ? named : named.slice(0, colon));
	const reader = openOciLayout(path);
	if (at !== -1) {
		return { digest: parseDigest(text.slice(at + 1)), reader };
	}
	const tag = colon === -1 ? undefined : named.slice(colon + 1);
	const root = reader.find(tag);
	if (root === undefined) {
		const found = reader
			.roots()
			.map((each) => each.annotations?.["org.opencontainers.image.ref.name"] ?? each.digest);
		throw new SlipwayError(
			"not-found",
			`no image ${tag === undefined ? "without a tag" : JSON.stringify(tag)} in OCI layout ${path}, which has ${found.join(", ") || "none"}: name one as oci-layout://PATH:TAG`,
		);
	}
	return { digest: root.digest, reader };
}
