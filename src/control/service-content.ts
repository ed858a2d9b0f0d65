import { statSync } from "node:fs";
import type * as messages from "../api/generated/content.ts";
import type { ServedMethod } from "../api/grpc.ts";
import { serve } from "../api/grpc-server.ts";
import { content } from "../api/services/content.ts";
import { timestampOf } from "../api/timestamps.ts";
import type { BlobInfo, ContentStore, LocalContent } from "../content/content.ts";
import { SlipwayError, wrap } from "../errors/errors.ts";
import { type Digest, isDigest } from "../oci/digest.ts";
import { type Filter, parseFilters } from "./service-filter.ts";

/** Blobs in one message; containerd's. */
const infosPerMessage = 100;
const maxReadBytes = 1 << 20;

type ServedContent = ContentStore & Partial<Pick<LocalContent, "path">>;

/** containerd's content API over the history's blobs and then the builder's, for reading only. */
export function contentMethods(stores: readonly ServedContent[]): readonly ServedMethod[] {
	const find = async (
		digest: Digest,
	): Promise<{ readonly store: ServedContent; readonly info: BlobInfo }> => {
		for (const store of stores) {
			const info = await store.info(digest);
			if (info !== undefined) {
				return { store, info };
			}
		}
		throw new SlipwayError("not-found", `content digest ${digest}: not found`);
	};
	return [
		serve(content.info, async ({ digest }) => {
			const { store, info } = await find(parse(digest));
			return { info: infoMessage(info, store) };
		}),
		serve(content.list, async ({ filters }, stream) => {
			const matches = filterOf(filters);
			const seen = new Set<string>();
			let block: messages.Info[] = [];
			for (const store of stores) {
				for await (const info of store.list()) {
					if (seen.has(info.digest) || !matches((path) => fieldOf(info, path))) {
						continue;
					}
					seen.add(info.digest);
					block.push(infoMessage(info, store));
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
			throw new SlipwayError(
				"not-found",
				`could not get status for ref ${JSON.stringify(ref)}: reference ${ref}: not found`,
			);
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

/** containerd's: `digest` and `size`; blobs have no labels here. */
function fieldOf({ digest, size }: BlobInfo, path: readonly string[]): string | undefined {
	switch (path.join(".")) {
		case "digest":
			return digest;
		case "size":
			return String(size);
		default:
			return undefined;
	}
}

function filterOf(filters: readonly string[]): Filter {
	try {
		return parseFilters(filters);
	} catch (error) {
		throw wrap(error, "", { code: "invalid-argument" });
	}
}

/** A file is written once, so that its time is the blob's. */
function infoMessage({ digest, size }: BlobInfo, store: ServedContent): messages.Info {
	const written = store.path === undefined ? undefined : statSync(store.path(digest)).mtimeMs;
	const time = written === undefined ? undefined : timestampOf(written);
	return { digest, size, createdAt: time, updatedAt: time, labels: new Map() };
}
