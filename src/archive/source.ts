import type { MessagePort } from "node:worker_threads";
import { receiveBytes } from "../async/byte-channel.ts";
import { readChunks } from "./decompress.ts";

/** A request's byte source as it comes to a thread: the stream became a port. */
export type SentSource =
	| { readonly kind: "file"; readonly path: string }
	| { readonly kind: "port"; readonly port: MessagePort };

export function openSource(
	source: SentSource,
	signal: AbortSignal,
): AsyncIterable<Uint8Array> | Iterable<Uint8Array> {
	return source.kind === "file" ? readChunks(source.path) : receiveBytes(source.port, { signal });
}
