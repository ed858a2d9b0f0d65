import { createLimit, type Limit } from "../async/limit.ts";
import type { BlobOptions, ImmutableRef } from "../cache/cache.ts";
import { withStatus } from "../exporter/status.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import { discardProgress } from "../progress/progress.ts";
import type { StepContext } from "../solver/solver.ts";
import type { BlobForm, CacheBlob, CacheTarget } from "./remotecache.ts";

/** Blobs on their way to one target that does not say; registries limit themselves further. */
const defaultUploads = 4;
/** Results that are compressed while steps run: those need the processors too. */
const maxEarly = 1;

/** Sends each blob to one target once, several at a time. */
export class Uploads {
	readonly #target: CacheTarget;
	readonly #limit: Limit;
	readonly #sent = new Map<Digest, Promise<void>>();
	/** True if it was sent. */
	readonly #early = new Map<Digest, Promise<boolean>>();

	constructor(target: CacheTarget) {
		this.#target = target;
		this.#limit = createLimit(target.maxUploads ?? defaultUploads);
	}

	/** Shown as `writing layer …`. */
	send(blob: CacheBlob, context: StepContext): Promise<void> {
		const { digest } = blob.descriptor;
		let sent = this.#sent.get(digest);
		if (sent === undefined) {
			sent = this.#send(blob, context);
			sent.catch(() => {});
			this.#sent.set(digest, sent);
		}
		return sent;
	}

	/** While the build goes on, and before it is sure that there will be an export. What fails is tried again by `send`. */
	sendEarly(blob: CacheBlob, context: StepContext): Promise<unknown> {
		const { digest } = blob.descriptor;
		let sent = this.#early.get(digest);
		if (sent === undefined) {
			sent = this.#transfer(blob, context).then(
				() => true,
				() => false,
			);
			this.#early.set(digest, sent);
		}
		return sent;
	}

	async #send(blob: CacheBlob, context: StepContext): Promise<void> {
		const { digest } = blob.descriptor;
		await withStatus(context, `writing layer ${digest}`, async () => {
			if ((await this.#early.get(digest)) !== true) {
				await this.#transfer(blob, context);
			}
		});
	}

	async #transfer(blob: CacheBlob, context: StepContext): Promise<void> {
		using _slot = await this.#limit.acquire(context);
		await this.#target.sendBlob(blob, context);
	}

	/** Waits for what is still on its way, however it ends. */
	async settled(): Promise<void> {
		await Promise.allSettled([...this.#sent.values(), ...this.#early.values()]);
	}
}

/** Results of steps are made into blobs and sent while later steps run. Disposing it ends that. */
export class EarlyUploads implements AsyncDisposable {
	readonly #targets: readonly { readonly form: BlobForm; readonly uploads: Uploads }[];
	readonly #stop = new AbortController();
	readonly #limit = createLimit(maxEarly);
	readonly #running = new Set<Promise<void>>();

	constructor(targets: readonly { readonly form: BlobForm; readonly uploads: Uploads }[]) {
		this.#targets = targets;
	}

	/** The handle stays the caller's. */
	add(ref: ImmutableRef): void {
		if (this.#targets.length === 0 || this.#stop.signal.aborted) {
			return;
		}
		const held = ref.clone();
		const running = this.#send(held)
			// The export itself says what is wrong.
			.catch(() => {})
			.finally(() => held.release())
			.finally(() => this.#running.delete(running));
		this.#running.add(running);
	}

	async #send(ref: ImmutableRef): Promise<void> {
		const { signal } = this.#stop;
		using _slot = await this.#limit.acquire({ signal });
		const context: StepContext = {
			signal,
			vertex: sha256("early uploads"),
			progress: discardProgress,
			clients: () => [],
		};
		for (const { form, uploads } of this.#targets) {
			const blobs = await ref.blobs(blobOptions(form, context));
			await Promise.all(blobs.map((blob) => uploads.sendEarly(blob, context)));
		}
	}

	async [Symbol.asyncDispose](): Promise<void> {
		if (this.#targets.length > 0) {
			this.#stop.abort();
		}
		await Promise.all(this.#running);
	}
}

export function blobOptions(
	{ compression, level, force }: BlobForm,
	{ signal, progress, vertex }: StepContext,
): BlobOptions {
	return { compression, ...(level === undefined ? {} : { level }), force, signal, progress, vertex };
}
