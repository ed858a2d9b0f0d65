import type { Digest } from "../oci/digest.ts";
import {
	type ProgressEvent,
	type ProgressSink,
	progressTime,
	type StatusRecord,
	type VertexRecord,
} from "../progress/progress.ts";

/**
 * What one job sees of its vertices. It completes the picture for clients: inputs that never ran are cached once a vertex
 * above them starts, and what is under way when the job ends is cancelled.
 */
export class JobProgress implements ProgressSink {
	readonly #sink: ProgressSink;
	readonly #records = new Map<Digest, VertexRecord>();
	/** Statuses under way of vertices that were opened again. */
	readonly #late = new Map<Digest, Set<string>>();

	constructor(sink: ProgressSink) {
		this.#sink = sink;
	}

	write(event: ProgressEvent): void {
		switch (event.kind) {
			case "vertex":
				this.#writeVertex(event.vertex);
				return;
			case "status":
				this.#writeStatus(event.status);
				return;
			default:
				this.#sink.write(event);
		}
	}

	/** Nothing may be written afterwards. */
	end(): void {
		const completed = progressTime();
		for (const record of this.#records.values()) {
			if (record.started !== undefined && record.completed === undefined) {
				const canceled = record.cached || record.error !== undefined ? {} : { error: "context canceled" };
				this.#sink.write({ kind: "vertex", vertex: { ...record, completed, ...canceled } });
			}
		}
		this.#records.clear();
	}

	#writeVertex(vertex: VertexRecord): void {
		if (vertex.started !== undefined) {
			this.#completeInputs(vertex, vertex.started);
		}
		this.#emit(vertex);
	}

	/**
	 * Work may go on for a vertex that has ended: layers of an image are fetched when somebody needs their files. That opens the
	 * vertex again until the last piece of such work has ended.
	 */
	#writeStatus(status: StatusRecord): void {
		const record = this.#records.get(status.vertex);
		const late = this.#late.get(status.vertex);
		if (record?.completed !== undefined && status.completed === undefined) {
			const { completed: _, ...open } = record;
			this.#late.set(status.vertex, new Set([status.id]));
			this.#emit({ ...open, cached: false, started: status.started ?? status.timestamp });
		} else if (status.completed === undefined) {
			late?.add(status.id);
		}
		this.#sink.write({ kind: "status", status });
		if (status.completed !== undefined && late?.delete(status.id) === true && late.size === 0) {
			this.#late.delete(status.vertex);
			const open = this.#records.get(status.vertex);
			if (open !== undefined) {
				this.#emit({ ...open, completed: status.completed });
			}
		}
	}

	/** Deepest first, each once: what is marked has started, and is passed by the next time. */
	#completeInputs(consumer: VertexRecord, time: number): void {
		const implied: VertexRecord[] = [];
		const stack = [consumer];
		for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
			for (const digest of top.inputs) {
				const input = this.#records.get(digest);
				if (input !== undefined && input.started === undefined) {
					const record = { ...input, cached: true, started: time, completed: time };
					this.#records.set(digest, record);
					implied.push(record);
					stack.push(record);
				}
			}
		}
		for (const record of implied.reverse()) {
			this.#sink.write({ kind: "vertex", vertex: record });
		}
	}

	#emit(vertex: VertexRecord): void {
		this.#records.set(vertex.digest, vertex);
		this.#sink.write({ kind: "vertex", vertex });
	}
}
