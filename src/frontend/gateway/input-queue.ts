/** What a process is given to read. Whoever writes waits until it was taken. */
export class InputQueue implements AsyncIterable<Uint8Array> {
	readonly #chunks: { readonly data: Uint8Array; readonly taken: () => void }[] = [];
	#wake: (() => void) | undefined;
	#ended = false;

	/** Resolves when it was taken, or nobody will take it any more. */
	async push(data: Uint8Array): Promise<void> {
		if (this.#ended) {
			return;
		}
		await new Promise<void>((taken) => {
			this.#chunks.push({ data, taken });
			this.#wake?.();
		});
	}

	/** Nothing more comes. */
	end(): void {
		this.#ended = true;
		this.#wake?.();
	}

	/** Nobody reads any more. */
	stop(): void {
		this.end();
		for (const chunk of this.#chunks.splice(0)) {
			chunk.taken();
		}
	}

	async *[Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
		try {
			for (;;) {
				const chunk = this.#chunks.shift();
				if (chunk !== undefined) {
					yield chunk.data;
					chunk.taken();
				} else if (this.#ended) {
					return;
				} else {
					await new Promise<void>((resolve) => {
						this.#wake = resolve;
					});
					this.#wake = undefined;
				}
			}
		} finally {
			this.stop();
		}
	}
}
