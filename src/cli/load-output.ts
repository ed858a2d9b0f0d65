import { spawn } from "node:child_process";
import { SlipwayError, toError } from "../errors/errors.ts";
import type { ImageOffer, SessionOutput } from "../session/session.ts";
import { createEngineClient, type EngineClient } from "./engine-client.ts";
import { type EnginePlace, findEngine } from "./engine-place.ts";

type Stream = Extract<SessionOutput, { kind: "stream" }>;

export interface LoadOptions {
	readonly env: Readonly<Record<string, string | undefined>>;
	/** A Docker context by name. */
	readonly context: string | undefined;
	readonly signal: AbortSignal;
}

/** How an engine takes images. */
interface Target {
	/** `docker` for engines that read only `docker save`'s form, `oci` for those that take indexes too. */
	readonly type: "docker" | "oci";
	/** Whether an archive may leave out blobs that the engine has. */
	readonly mayOmit: boolean;
}

/**
 * The output that loads the image into a running engine, and the type of exporter that makes what the engine reads. An engine is asked
 * which layers it has, and is sent only the others; if it cannot use that after all it is sent everything.
 */
export async function loadOutput(
	options: LoadOptions,
): Promise<{ readonly type: Target["type"]; readonly output: Stream }> {
	const { env, signal } = options;
	const place = findEngine(options);
	if (place.kind === "program") {
		const load = (archive: AsyncIterable<Uint8Array>, abort: AbortSignal): Promise<void> =>
			loadWithProgram(place, archive, env, abort);
		return {
			type: "oci",
			output: streamOf(
				async (offer, { signal: abort }) => load(offer.archive(new Set()), abort),
				load,
				signal,
			),
		};
	}
	const client = createEngineClient(place);
	const target = await targetOf(client, signal);
	return {
		type: target.type,
		output: streamOf(
			(offer, { signal: abort }) => loadMissing(client, target, offer, abort),
			(archive, abort) => client.load(archive, { signal: abort }),
			signal,
		),
	};
}

async function targetOf(client: EngineClient, signal: AbortSignal): Promise<Target> {
	const info = (await client.get("/info", { signal })) as { readonly DriverStatus?: unknown };
	const version = (await client.get("/version", { signal })) as { readonly Components?: unknown };
	const components = Array.isArray(version.Components) ? version.Components : [];
	const isPodman = components.some((each: { readonly Name?: unknown }) => each?.Name === "Podman Engine");
	const status = Array.isArray(info.DriverStatus) ? info.DriverStatus : [];
	const isContainerd = status.some(
		(pair: unknown) =>
			Array.isArray(pair) && pair[0] === "driver-type" && pair[1] === "io.containerd.snapshotter.v1",
	);
	return { type: isPodman || isContainerd ? "oci" : "docker", mayOmit: true };
}

async function loadMissing(
	client: EngineClient,
	{ mayOmit }: Target,
	offer: ImageOffer,
	signal: AbortSignal,
): Promise<void> {
	const known = mayOmit ? await knownLayers(client, offer, signal) : new Set<string>();
	try {
		await client.load(offer.archive(known), { signal });
	} catch (thrown) {
		// An image may have been removed meanwhile, or the engine keeps the files of a layer but not its blob.
		if (known.size === 0 || signal.aborted) {
			throw thrown;
		}
		await client.load(offer.archive(new Set()), { signal });
	}
}

/** Images of the engine that are looked at: the newest, as a rebuild finds its layers in the last build. */
const maxInspected = 64;
const parallelInspections = 8;

/** The layers of the offered image that are also, in the same place, in an image of the engine. */
async function knownLayers(
	client: EngineClient,
	offer: ImageOffer,
	signal: AbortSignal,
): Promise<ReadonlySet<string>> {
	const list = await client.get("/images/json", { signal });
	const ids = (Array.isArray(list) ? list : [])
		.filter(
			(each): each is { readonly Id: string; readonly Created?: number } => typeof each?.Id === "string",
		)
		.sort((a, b) => (b.Created ?? 0) - (a.Created ?? 0))
		.slice(0, maxInspected)
		.map(({ Id }) => Id);
	const known = new Set<string>();
	const inspect = async (id: string): Promise<void> => {
		const layers = await layersOf(client, id, signal);
		for (const image of offer.images) {
			for (const [index, { diffId, digest }] of image.layers.entries()) {
				if (layers[index] !== diffId) {
					break;
				}
				known.add(digest);
			}
		}
	};
	const queue = [...ids];
	await Promise.all(
		Array.from({ length: parallelInspections }, async () => {
			for (let id = queue.shift(); id !== undefined; id = queue.shift()) {
				await inspect(id);
			}
		}),
	);
	return known;
}

async function layersOf(client: EngineClient, id: string, signal: AbortSignal): Promise<readonly unknown[]> {
	try {
		const image = (await client.get(`/images/${encodeURIComponent(id)}/json`, { signal })) as {
			readonly RootFS?: { readonly Layers?: unknown };
		};
		const layers = image.RootFS?.Layers;
		return Array.isArray(layers) ? layers : [];
	} catch (thrown) {
		// Removed since it was listed, or not an image at all.
		if (signal.aborted) {
			throw thrown;
		}
		return [];
	}
}

/** `podman load` reads an archive from its standard input. */
async function loadWithProgram(
	place: Extract<EnginePlace, { kind: "program" }>,
	archive: AsyncIterable<Uint8Array>,
	env: LoadOptions["env"],
	signal: AbortSignal,
): Promise<void> {
	const child = spawn(place.path, ["load", "--quiet"], {
		env: { ...env } as NodeJS.ProcessEnv,
		stdio: ["pipe", "ignore", "pipe"],
		signal,
	});
	const said: Buffer[] = [];
	child.stderr.on("data", (chunk: Buffer) => said.push(chunk));
	const ended = new Promise<number | null>((resolve, reject) => {
		child.on("error", reject);
		child.on("close", resolve);
	});
	ended.catch(() => {});
	child.stdin.on("error", () => {});
	try {
		for await (const chunk of archive) {
			if (!child.stdin.writable) {
				break;
			}
			if (!child.stdin.write(chunk)) {
				await Promise.race([new Promise((resolve) => child.stdin.once("drain", resolve)), ended]);
			}
		}
		child.stdin.end();
		const code = await ended;
		if (code !== 0) {
			const text = Buffer.concat(said).toString("utf8").trim();
			throw new SlipwayError("unknown", `${place.path} load ended with ${code}: ${text}`);
		}
	} catch (thrown) {
		child.kill("SIGKILL");
		throw signal.aborted ? toError(signal.reason) : toError(thrown);
	}
}

/** For a builder that only streams, the archive as a whole: what is written goes to the engine as it comes. */
function streamOf(
	takeImage: NonNullable<Stream["takeImage"]>,
	load: (archive: AsyncIterable<Uint8Array>, signal: AbortSignal) => Promise<void>,
	signal: AbortSignal,
): Stream {
	return {
		kind: "stream",
		takeImage,
		async open() {
			const stop = new AbortController();
			const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
			const loading = load(readable, AbortSignal.any([signal, stop.signal]));
			loading.catch(() => {});
			const writer = writable.getWriter();
			const failed = loading.then(() => new Promise<never>(() => {}));
			failed.catch(() => {});
			return {
				fd: undefined,
				write: (chunk) => Promise.race([writer.write(chunk), failed]),
				async close() {
					await Promise.race([writer.close(), failed]);
					await loading;
				},
				async abort() {
					stop.abort(new SlipwayError("canceled", "the result is not wanted"));
					await loading.catch(() => {});
				},
			};
		},
	};
}
