import { fileSend } from "../api/services/filesync.ts";
import { SlipwayError } from "../errors/errors.ts";
import { bytesOf } from "../sys/byte-names.ts";
import { type Announced, createAnnouncer } from "./announce.ts";
import { ended, openCall, type RemoteCalls } from "./remote-calls.ts";
import { RemoteContent } from "./remote-content.ts";
import { sendTree } from "./send-tree.ts";
import { mergeTrees, prefixDirectory } from "./send-trees.ts";
import type { OutputStream, OutputTree, SessionOutput, TreeOutputOptions } from "./session.ts";
import { callKeys, exportStore } from "./session-metadata.ts";
import { walkSource } from "./walk-source.ts";

/** Peers of other languages take messages of 4 MiB. */
const messageBytes = 3 << 20;

/** The client's place for an exporter, in each form that it may have; the client refuses the others. */
export function remoteOutput(calls: RemoteCalls, index: number): Extract<SessionOutput, { kind: "remote" }> {
	return {
		kind: "remote",
		stream: { kind: "stream", open: async (metadata) => openStream(calls, index, metadata) },
		tree: { kind: "tree", send: (trees, options) => sendOutput(calls, index, trees, options) },
		store: {
			kind: "store",
			store: {
				has: (digest) => new RemoteContent(calls, exportStore).has(digest),
				write: (descriptor, chunks, options) =>
					new RemoteContent(calls, exportStore).write(descriptor, chunks, options),
				// The client does it, with the descriptor of the exporter's response.
				setRoot: async () => {},
			},
		},
	};
}

function openStream(
	calls: RemoteCalls,
	index: number,
	response: Readonly<Record<string, string>>,
): OutputStream {
	checkSupport(calls);
	const { stream } = openCall(calls, fileSend.diffCopy, {
		signal: calls.closed,
		metadata: {
			...Object.fromEntries(
				Object.entries(response).map(([key, value]) => [`${callKeys.exporterResponse}${key}`, [value]]),
			),
			[callKeys.exporterId]: [String(index)],
		},
	});
	return {
		fd: undefined,
		async write(chunk) {
			for (let at = 0; at < chunk.length; at += messageBytes) {
				// The caller may use its chunk again.
				await stream.send({ data: chunk.slice(at, at + messageBytes) });
			}
		},
		close: () => ended(stream),
		async abort() {
			stream.cancel();
		},
	};
}

async function sendOutput(
	calls: RemoteCalls,
	index: number,
	trees: readonly OutputTree[],
	{ mirror, signal, onBytes }: TreeOutputOptions,
): Promise<void> {
	checkSupport(calls);
	using open = openCall(calls, fileSend.diffCopyPackets, {
		signal,
		metadata: {
			[callKeys.exporterId]: [String(index)],
			...(mirror ? { [callKeys.multiPlatform]: ["1"] } : {}),
		},
	});
	await sendTree(
		open.stream,
		mergeTrees(trees.map((tree) => ({ id: tree.id, entries: announceTree(tree) }))),
		{
			signal,
			...(onBytes === undefined ? {} : { onProgress: onBytes }),
		},
	);
	await ended(open.stream);
}

/** The files of one tree, behind the folder that they go into. */
function* announceTree({ root, prefix, modifiedSeconds }: OutputTree): Generator<Announced, void> {
	const folder = bytesOf(prefix);
	const modified = modifiedSeconds === undefined ? undefined : BigInt(modifiedSeconds) * 1_000_000_000n;
	if (folder !== "") {
		yield prefixDirectory(folder, modified ?? 0n);
	}
	if (root === undefined) {
		return;
	}
	const announce = createAnnouncer({
		root,
		prefix: folder === "" ? "" : `${folder}/`,
		anonymous: false,
		...(modified === undefined ? {} : { modified }),
	});
	for (const entry of walkSource(root, undefined)) {
		const announced = announce(entry);
		if (announced !== undefined) {
			yield announced;
		}
	}
}

function checkSupport(calls: RemoteCalls): void {
	if (!calls.supports(fileSend.diffCopy)) {
		throw new SlipwayError("unknown", `method ${fileSend.diffCopy.path} not supported by the client`);
	}
}
