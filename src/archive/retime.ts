import type { Timestamp } from "../sys/sys.ts";
import type { TarHeader } from "./archive.ts";
import { paddingOf } from "./tar-format.ts";
import { type TarHandler, TarReader } from "./tar-reader.ts";
import { encodeHeader, endOfArchive } from "./tar-writer.ts";

/**
 * The tar with no time later than the bound, its headers written anew as BuildKit's rewrite-timestamp writes them; without a
 * bound the same bytes. `onEntry` is called for each entry.
 */
export async function* retime(
	chunks: AsyncIterable<Uint8Array>,
	maxSeconds: number | undefined,
	onEntry: () => void,
): AsyncGenerator<Uint8Array> {
	/** Bytes, or a number of zeros. */
	const out: (Uint8Array | number)[] = [];
	let size = 0;
	const handler: TarHandler = {
		entry(header) {
			onEntry();
			if (maxSeconds !== undefined) {
				size = header.size;
				out.push(encodeHeader(bounded(header, maxSeconds)));
			}
		},
		data(piece) {
			if (maxSeconds !== undefined) {
				out.push(piece);
			}
		},
		hole(bytes) {
			if (maxSeconds !== undefined) {
				out.push(bytes);
			}
		},
		end() {
			if (maxSeconds !== undefined && size > 0) {
				out.push(paddingOf(size));
			}
		},
	};
	const reader = new TarReader(handler);
	for await (const chunk of chunks) {
		reader.push(chunk);
		if (maxSeconds === undefined) {
			yield chunk;
		}
		// Views of the chunk: used up before the next one is asked for.
		for (const piece of out.splice(0)) {
			if (typeof piece !== "number") {
				yield piece;
				continue;
			}
			for (let left = piece; left > 0; left -= zeros.length) {
				yield zeros.subarray(0, Math.min(left, zeros.length));
			}
		}
	}
	reader.end();
	if (maxSeconds !== undefined) {
		yield endOfArchive;
	}
}

const zeros = new Uint8Array(64 << 10);

function bounded(header: TarHeader, maxSeconds: number): TarHeader {
	const bound = <T extends Timestamp | undefined>(time: T): T | Timestamp =>
		time !== undefined && (time.seconds > maxSeconds || (time.seconds === maxSeconds && time.nanoseconds > 0))
			? { seconds: maxSeconds, nanoseconds: 0 }
			: time;
	return {
		...header,
		modified: bound(header.modified),
		accessed: bound(header.accessed),
		changed: bound(header.changed),
	};
}
