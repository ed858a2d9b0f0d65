import type * as messages from "../api/generated/content.ts";
import type { ServedMethod } from "../api/grpc.ts";
import { serve } from "../api/grpc-server.ts";
import { content } from "../api/services/content.ts";
import type { BlobInfo, ContentReader, ContentStore } from "../content/content.ts";
import { SlipwayError } from "../errors/errors.ts";
import { type Digest, isDigest } from "../oci/digest.ts";

/** Blobs in one message; containerd's. */
const infosPerMessage = 100;
const maxReadBytes = 1 << 20;

/** containerd's content API over the history's blobs and then the builder's, for reading only. */
export function contentMethods(stores: readonly ContentStore[]): readonly ServedMethod[] {
	const find = async (
		digest: Digest,
	): Promise<{ readonly store: ContentReader; readonly info: BlobInfo }> => {
		for (const store of stores) {
			const info = await store.info(digest);
			if (info !== undefined) {
				return { store, info };
			}
		}
		throw new SlipwayError("not-found", `content digest ${digest}: not found`);
	};
	return [
		serve(content.info, async ({ digest }) => ({ info: infoMessage((await find(parse(digest))).info) })),
		serve(content.list, async ({ filters }, stream) => {
			if (filters.length > 0) {
				throw new SlipwayError("unimplemented", "blobs have no labels to filter by");
			}
			const seen = new Set<string>();
			let block: messages.Info[] = [];
			for (const store of stores) {
				for await (const info of store.list()) {
					if (seen.has(info.digest)) {
						continue;
					}
					seen.add(info.digest);
					block.push(infoMessage(info));
					if (block.length === infosPerMessage) {
						await stream.send({ info: block });
						block = [];
					}
				}
			}
			if (block.length > 0) {
				await stream.send({ info: block });
			}
		}),
		serve(content.read, async ({ digest: text, offset, size }, stream, { signal }) => {
			const digest = parse(text);
			const { store, info } = await find(digest);
			const start = Math.max(offset, 0);
			if (start > info.size) {
				throw new SlipwayError("out-of-range", `read past object length ${info.size} bytes`);
			}
			const length = size <= 0 ? info.size - start : Math.min(size, info.size - start);
			let sent = 0;
			for await (const chunk of store.read(digest, { offset: start, length, signal })) {
				for (let at = 0; at < chunk.length; at += maxReadBytes) {
					const data = chunk.slice(at, at + maxReadBytes);
					await stream.send({ offset: sent, data });
					sent += data.length;
				}
			}
		}),
		serve(content.status, async ({ ref }) => {
			throw new SlipwayError("not-found", `could not get status for ref ${JSON.stringify(ref)}: not found`);
		}),
		serve(content.listStatuses, async () => ({ statuses: [] })),
		serve(content.update, async ({ info }) => refuse(info?.digest)),
		serve(content.delete, async ({ digest }) => refuse(digest)),
		serve(content.write, async () => refuse()),
		serve(content.abort, async () => refuse()),
	];
}

function refuse(digest?: string): never {
	if (digest !== undefined) {
		parse(digest);
	}
	throw new SlipwayError("unknown", "read-only content store");
}

function parse(text: string): Digest {
	if (!isDigest(text)) {
		throw new SlipwayError("invalid-argument", `${JSON.stringify(text)} failed validation`);
	}
	return text;
}

function infoMessage({ digest, size }: BlobInfo): messages.Info {
	return { digest, size, createdAt: undefined, updatedAt: undefined, labels: new Map() };
}
