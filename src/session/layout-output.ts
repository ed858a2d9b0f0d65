import { randomBytes } from "node:crypto";
import {
	closeSync,
	constants,
	existsSync,
	fstatSync,
	lstatSync,
	openSync,
	readFileSync,
	renameSync,
	rmSync,
	statSync,
	unlinkSync,
	writeFileSync,
	writeSync,
} from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { verified } from "../content/bytes.ts";
import { hasCode, SlipwayError, toError, wrap } from "../errors/errors.ts";
import { algorithmOf, type Digest, encodedOf, parseDigest } from "../oci/digest.ts";
import { maxManifestBytes } from "../oci/manifest.ts";
import { mediaTypes } from "../oci/media-types.ts";
import { compareUtf8 } from "../oci/utf8-order.ts";
import { tryLock } from "../sys/lock.ts";
import { makeDirectories } from "../sys/make-directories.ts";
import type { OutputStore, SessionOutput } from "./session.ts";

const imageNameAnnotation = "io.containerd.image.name";
const refNameAnnotation = "org.opencontainers.image.ref.name";

/** How long to wait for another build that writes to the same index. */
const lockWaitMs = 10_000;

/**
 * A directory in OCI image layout (image-layout.md) that results are added to. Blobs are verified and appear whole; the index is
 * changed under the lock that BuildKit's clients take as well, and replaced in one step.
 */
export function layoutOutput(directory: string): Extract<SessionOutput, { kind: "store" }> {
	if (statSync(directory, { throwIfNoEntry: false })?.isDirectory() === false) {
		throw new SlipwayError("invalid-argument", `destination directory ${directory} is a file`);
	}
	return { kind: "store", store: new LayoutStore(directory) };
}

class LayoutStore implements OutputStore {
	readonly #directory: string;

	constructor(directory: string) {
		this.#directory = directory;
	}

	async has(digest: string): Promise<boolean> {
		return existsSync(this.#path(parseDigest(digest)));
	}

	async write(
		descriptor: { readonly digest: string; readonly size: number },
		chunks: AsyncIterable<Uint8Array>,
		{ signal }: { readonly signal: AbortSignal },
	): Promise<void> {
		const digest = parseDigest(descriptor.digest);
		const path = this.#path(digest);
		const temporary = `${path}.${randomBytes(6).toString("hex")}`;
		let fd = -1;
		try {
			makeDirectories(`${this.#directory}/blobs/${algorithmOf(digest)}`);
			fd = openSync(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o644);
			for await (const chunk of verified(chunks, { digest, size: descriptor.size })) {
				if (signal.aborted) {
					throw toError(signal.reason);
				}
				for (let at = 0; at < chunk.length; ) {
					at += writeSync(fd, chunk, at);
				}
			}
			renameSync(temporary, path);
		} catch (thrown) {
			rmSync(temporary, { force: true });
			throw wrap(thrown, `could not write blob ${digest} to ${this.#directory}`);
		} finally {
			if (fd >= 0) {
				closeSync(fd);
			}
		}
	}

	async setRoot(
		descriptor: string,
		names: readonly string[],
		{ tag = "latest" }: { readonly tag?: string } = {},
	): Promise<void> {
		const root = JSON.parse(descriptor) as IndexEntry;
		try {
			makeDirectories(this.#directory);
			using _ = await lockIndex(`${this.#directory}/index.json.lock`);
			writeFileSync(`${this.#directory}/oci-layout`, '{"imageLayoutVersion":"1.0.0"}');
			const index = this.#readIndex();
			for (const annotations of names.length === 0 ? [tagAnnotations(tag)] : names.map(nameAnnotations)) {
				index.manifests = [
					...index.manifests.filter((entry) => !isNamed(entry, annotations)),
					annotate(root, annotations),
				];
			}
			const file = `${this.#directory}/index.json`;
			const temporary = `${file}.${randomBytes(6).toString("hex")}`;
			try {
				writeFileSync(temporary, JSON.stringify(index), { flag: "wx" });
				renameSync(temporary, file);
			} catch (thrown) {
				rmSync(temporary, { force: true });
				throw thrown;
			}
		} catch (thrown) {
			throw wrap(thrown, `could not add the result to ${this.#directory}`);
		}
	}

	#path(digest: Digest): string {
		return `${this.#directory}/blobs/${algorithmOf(digest)}/${encodedOf(digest)}`;
	}

	#readIndex(): Index {
		const file = `${this.#directory}/index.json`;
		const stat = statSync(file, { throwIfNoEntry: false });
		if (stat !== undefined && stat.size > maxManifestBytes) {
			throw new SlipwayError(
				"invalid-argument",
				`${file} has ${stat.size} bytes, more than ${maxManifestBytes}`,
			);
		}
		const text = stat === undefined ? "" : readFileSync(file, "utf8");
		return parseIndex(text, file);
	}
}

/** As it is in the file: what others wrote into it stays. */
interface Index {
	schemaVersion: unknown;
	mediaType: unknown;
	manifests: readonly IndexEntry[];
}

interface IndexEntry {
	readonly mediaType: string;
	readonly digest: string;
	readonly size: number;
	readonly urls?: readonly string[];
	readonly annotations?: Readonly<Record<string, string>>;
}

function parseIndex(text: string, file: string): Index {
	if (text === "") {
		return { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [] };
	}
	let value: unknown;
	try {
		value = JSON.parse(text);
	} catch (thrown) {
		throw new SlipwayError("invalid-argument", `could not parse ${file}`, { cause: thrown });
	}
	const index = value as Partial<Index> | null;
	if (typeof index !== "object" || index === null || !Array.isArray(index.manifests ?? [])) {
		throw new SlipwayError("invalid-argument", `${file} is no index of an OCI layout`);
	}
	return {
		...index,
		schemaVersion: index.schemaVersion ?? 2,
		mediaType: index.mediaType ?? mediaTypes.ociIndex,
		manifests: index.manifests ?? [],
	};
}

function tagAnnotations(tag: string): Readonly<Record<string, string>> {
	return { [refNameAnnotation]: tag };
}

function nameAnnotations(name: string): Readonly<Record<string, string>> {
	return { [imageNameAnnotation]: name, [refNameAnnotation]: referenceObject(name) };
}

/** The part behind the repository, as containerd cuts it: `latest`, `@sha256:…`, `v1@sha256:…`. A name without host has none. */
function referenceObject(name: string): string {
	const slash = name.indexOf("/");
	if (slash < 1) {
		return name;
	}
	const at = name.slice(slash).search(/[:@]/);
	return at === -1 ? "" : name.slice(slash + at).replace(/^:/, "");
}

function isNamed(entry: IndexEntry, annotations: Readonly<Record<string, string>>): boolean {
	return [refNameAnnotation, imageNameAnnotation].every(
		(key) => (entry.annotations?.[key] ?? "") === (annotations[key] ?? ""),
	);
}

/** Go's order of fields and of annotations. */
function annotate(root: IndexEntry, added: Readonly<Record<string, string>>): IndexEntry {
	const { mediaType, digest, size, urls, annotations, ...rest } = root;
	const all = Object.entries({ ...annotations, ...added }).sort(([a], [b]) => compareUtf8(a, b));
	return {
		mediaType,
		digest,
		size,
		...(urls === undefined ? {} : { urls }),
		annotations: Object.fromEntries(all),
		...rest,
	};
}

/**
 * The lock file goes with its lock, as BuildKit does it: so whoever gets a lock must see that the file is still there under its
 * name, or somebody else may hold another file's.
 */
async function lockIndex(path: string): Promise<Disposable> {
	const deadline = performance.now() + lockWaitMs;
	for (;;) {
		const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o644);
		try {
			if (tryLock(fd) && lstatSync(path, { throwIfNoEntry: false })?.ino === fstatSync(fd).ino) {
				return {
					[Symbol.dispose]() {
						try {
							unlinkSync(path);
						} catch (thrown) {
							if (!hasCode(toError(thrown), "not-found")) {
								throw toError(thrown);
							}
						} finally {
							closeSync(fd);
						}
					},
				};
			}
		} catch (thrown) {
			closeSync(fd);
			throw thrown;
		}
		closeSync(fd);
		if (performance.now() > deadline) {
			throw new SlipwayError("unavailable", `could not lock ${path}`);
		}
		await sleep(20);
	}
}
