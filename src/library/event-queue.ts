import type { ProgressEvent, ProgressSink } from "../progress/progress.ts";

/** Events between a build that never waits and a reader that may begin late. One reader; he gets all from the first one on. */
export class EventQueue implements ProgressSink, AsyncIterable<ProgressEvent> {
	#events: ProgressEvent[] = [];
	#ended = false;
	#wake: (() => void) | undefined;

	write(event: ProgressEvent): void {
		this.#events.push(event);
		this.#wake?.();
	}

	end(): void {
		this.#ended = true;
		this.#wake?.();
	}

	async *[Symbol.asyncIterator](): AsyncGenerator<ProgressEvent> {
		for (;;) {
			const events = this.#events;
			this.#events = [];
			yield* events;
			if (this.#events.length > 0) {
				continue;
			}
			if (this.#ended) {
				return;
			}
			await new Promise<void>((wake) => {
				this.#wake = wake;
			});
			this.#wake = undefined;
		}
	}
}
