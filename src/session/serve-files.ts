import { randomBytes } from "node:crypto";
import { realpathSync, statSync } from "node:fs";
import type { MessageStream, ServedMethod, ServerCall } from "../api/grpc.ts";
import { serve } from "../api/grpc-server.ts";
import { bytesMessage } from "../api/services/bytes-message.ts";
import { fileSend, fileSync } from "../api/services/filesync.ts";
import { type Packet, packet } from "../api/services/packet.ts";
import type { ThreadPool } from "../async/pool.ts";
import { SlipwayError, wrap } from "../errors/errors.ts";
import { makeDirectories } from "../sys/make-directories.ts";
import { type Announced, createAnnouncer } from "./announce.ts";
import type { LocalSessionOptions } from "./local-session.ts";
import { receiveTree } from "./receive-tree.ts";
import { sendTree } from "./send-tree.ts";
import type { SessionOutput } from "./session.ts";
import { callKeys, metadataList, metadataValue } from "./session-metadata.ts";
import { sourceFilter } from "./source-patterns.ts";
import { walkSource } from "./walk-source.ts";

export function serveDirectories({ directories }: LocalSessionOptions): readonly ServedMethod[] {
	if (Object.keys(directories).length === 0) {
		return [];
	}
	return [
		serve(fileSync.diffCopy, async (stream, { metadata, signal }) => {
			const name = metadataList(metadata, callKeys.directory)[0] ?? "";
			const directory = Object.hasOwn(directories, name) ? directories[name] : undefined;
			if (directory === undefined) {
				throw new SlipwayError("not-found", `no access allowed to dir ${JSON.stringify(name)}`);
			}
			const root = resolveDirectory(directory.path);
			const { filter } = sourceFilter(root, {
				includePatterns: metadataList(metadata, callKeys.include),
				excludePatterns: metadataList(metadata, callKeys.exclude),
				followPaths: metadataList(metadata, callKeys.follow),
			});
			const announce = createAnnouncer({ root, prefix: "", anonymous: true });
			await sendTree(stream, announced(), { signal });

			function* announced(): Generator<Announced | undefined, void> {
				for (const entry of walkSource(root, filter)) {
					yield announce(entry);
				}
			}
		}),
	];
}

function resolveDirectory(path: string): string {
	try {
		const resolved = realpathSync(path);
		if (!statSync(resolved).isDirectory()) {
			throw new SlipwayError("failed-precondition", `${path} is not a directory`);
		}
		return resolved;
	} catch (thrown) {
		throw wrap(thrown, "could not read local directory");
	}
}

export function serveOutputs(
	{ outputs = [] }: LocalSessionOptions,
	pool: () => ThreadPool,
): readonly ServedMethod[] {
	if (!outputs.some((output) => output?.kind === "stream" || output?.kind === "directory")) {
		return [];
	}
	return [
		serve(fileSend.diffCopyRaw, async (stream, call) => {
			const text = metadataValue(call.metadata, callKeys.exporterId) ?? "";
			const index = /^\d{1,9}$/.test(text) ? Number(text) : 0;
			const output = outputs[index];
			switch (output?.kind) {
				case "stream":
					await receiveFile(stream, output, call);
					return;
				case "directory":
					await receiveDirectory(stream, output, call, pool());
					return;
				default:
					throw new SlipwayError("unknown", `exporter ${index} not found`);
			}
		}),
	];
}

type RawStream = MessageStream<Uint8Array, Uint8Array>;

async function receiveFile(
	stream: RawStream,
	output: Extract<SessionOutput, { kind: "stream" }>,
	{ metadata }: ServerCall,
): Promise<void> {
	const response: Record<string, string> = {};
	for (const [key, values] of Object.entries(metadata)) {
		if (key.startsWith(callKeys.exporterResponse)) {
			response[key.slice(callKeys.exporterResponse.length)] = values.join(",");
		}
	}
	const opened = await output.open(response);
	try {
		for await (const message of stream) {
			const { data } = bytesMessage.decode(message);
			if (data.length > 0) {
				await opened.write(data);
			}
		}
		await opened.close();
	} catch (thrown) {
		await opened.abort().catch(() => undefined);
		throw thrown;
	}
}

async function receiveDirectory(
	stream: RawStream,
	{ path, mode }: Extract<SessionOutput, { kind: "directory" }>,
	{ metadata, signal }: ServerCall,
	pool: ThreadPool,
): Promise<void> {
	const mirror = mode === "delete";
	if (mirror && !metadataList(metadata, callKeys.multiPlatform).includes("1")) {
		throw new SlipwayError(
			"unknown",
			"local exporter mode=delete requires a BuildKit daemon with multi-platform local export support",
		);
	}
	const target = prepare(path);
	const stalled = Promise.withResolvers<never>();
	stalled.promise.catch(() => undefined);
	await Promise.race([
		receiveTree(
			packets(stream),
			{
				target,
				force: true,
				mirror,
				place: { kind: "replace", unique: randomBytes(6).toString("hex") },
			},
			{ signal, pool, cancel: (error) => stalled.reject(error) },
		),
		stalled.promise,
	]);
}

/** The directory itself may be a link; below it none is followed. */
function prepare(path: string): string {
	try {
		makeDirectories(path, 0o700);
		return realpathSync(path);
	} catch (thrown) {
		throw wrap(thrown, `failed to create synctarget dest dir ${path}`);
	}
}

function packets(stream: RawStream): MessageStream<Packet, Packet> {
	return {
		send: (message) => stream.send(packet.encode(message).finish()),
		async *[Symbol.asyncIterator]() {
			for await (const message of stream) {
				yield packet.decode(message);
			}
		},
	};
}
