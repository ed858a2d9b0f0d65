import { mkdirSync, readdirSync, rmdirSync } from "node:fs";
import { wrap } from "../errors/errors.ts";
import { listMounts, mount, unmount } from "../sys/mount.ts";
import type { MountSpec } from "../sys/sys.ts";

/**
 * Trees that are mounted for the builder's own reading: digests, and comparing a layer with what is below it. A tree that is
 * one directory needs no mount and is read where it is.
 */
export class TemporaryMounts {
	readonly #root: string;
	#count = 0;

	/** Whatever an earlier process left mounted in `root` is unmounted. */
	constructor(root: string) {
		this.#root = root;
		mkdirSync(root, { recursive: true, mode: 0o700 });
		const left = readdirSync(root);
		if (left.length === 0) {
			return;
		}
		for (const { target } of listMounts(root).reverse()) {
			unmount(target, { detach: true });
		}
		for (const name of left) {
			rmdirSync(`${root}/${name}`);
		}
	}

	async use<T>(specs: readonly MountSpec[], work: (dir: string) => Promise<T> | T): Promise<T> {
		const plain = directoryOf(specs);
		if (plain !== undefined) {
			return await work(plain);
		}
		const dir = `${this.#root}/${process.pid}-${this.#count++}`;
		mkdirSync(dir);
		let mounted = 0;
		try {
			for (const spec of specs) {
				mount(spec, dir);
				mounted++;
			}
			return await work(dir);
		} catch (thrown) {
			throw wrap(thrown, "");
		} finally {
			for (; mounted > 0; mounted--) {
				// A thread that was told to stop may still have a file open.
				unmount(dir, { detach: true });
			}
			rmdirSync(dir);
		}
	}
}

/** The directory that a single bind mount shows. */
export function directoryOf(specs: readonly MountSpec[]): string | undefined {
	const [only, ...more] = specs;
	return only?.type === "bind" && more.length === 0 ? only.source : undefined;
}
