import type { Descriptor } from "../oci/descriptor.ts";
import { discardProgress, progressTime, type StatusRecord } from "../progress/progress.ts";
import type { RefWorkOptions } from "./cache.ts";
import type { CacheRecord } from "./record.ts";

/** Bytes between two reports of one download. */
const stepBytes = 1 << 20;

/** Passes chunks on and reports them as `downloading`, under the blob's digest as BuildKit does. */
export async function* countChunks(
	chunks: AsyncIterable<Uint8Array>,
	layer: CacheRecord,
	options: RefWorkOptions,
	{ digest, size }: Descriptor,
): AsyncGenerator<Uint8Array, void> {
	const report = reporter(layer, options, digest, "downloading");
	let current = 0;
	let reported = 0;
	report({ current, total: size });
	for await (const chunk of chunks) {
		current += chunk.length;
		if (current - reported >= stepBytes) {
			reported = current;
			report({ current, total: size });
		}
		yield chunk;
	}
	report({ current, total: size, completed: progressTime() });
}

/** Reports the beginning and end of a piece of work. */
export async function reportSpan<T>(
	layer: CacheRecord,
	options: RefWorkOptions,
	id: string,
	name: string,
	work: () => Promise<T>,
): Promise<T> {
	const report = reporter(layer, options, id, name);
	report({ current: 0, total: 0 });
	const result = await work();
	report({ current: 0, total: 0, completed: progressTime() });
	return result;
}

/** Who made the ref is told, as in BuildKit the step that names an image shows its download; else who asks for the files. */
function reporter(
	layer: CacheRecord,
	options: RefWorkOptions,
	id: string,
	name: string,
): (values: Pick<StatusRecord, "current" | "total" | "completed">) => void {
	const origin = [...layer.origins].findLast(
		({ progress, vertex }) => progress !== undefined && vertex !== undefined,
	);
	const { vertex, progress: sink = discardProgress } = origin ?? options;
	const started = progressTime();
	return (values) => {
		if (vertex !== undefined) {
			const timestamp = progressTime();
			sink.write({ kind: "status", status: { vertex, id, name, timestamp, started, ...values } });
		}
	};
}
