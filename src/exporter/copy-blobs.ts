import type { ThreadPool } from "../async/pool.ts";
import type { ContentStore, LocalContent } from "../content/content.ts";
import type { ArchivePart } from "./archive-parts.ts";
import type { BlobFile } from "./blob-file.ts";
import type { Damage } from "./layer-files.ts";
import { runToEnd } from "./run-to-end.ts";
import type { VerifyBlobsInput } from "./verify-blobs.job.ts";
import type { FilePart, WriteOutputInput } from "./write-output.job.ts";

/** Below this, a blob is hashed by the thread that copies it: another thread would cost more. */
const smallBytes = 8 << 20;

/**
 * Writes the parts of an archive to a file and makes sure that its blobs are what their names say. Where hashing is slow (a
 * processor without instructions for SHA-256 takes three seconds for a gigabyte, to copy it takes half a second), it costs time
 * only where nobody knows the blob: what this process made or has looked at is copied, the rest is hashed by other threads meanwhile.
 */
export async function copyParts(
	fd: number,
	parts: readonly ArchivePart[],
	{ content, pool }: { readonly content: ContentStore & LocalContent; readonly pool: ThreadPool },
	signal: AbortSignal,
): Promise<Damage | undefined> {
	const blobs = new Map<string, BlobFile>();
	for (const part of parts) {
		if (part.kind === "blob" && !content.isConfirmed(part.digest)) {
			blobs.set(part.digest, { digest: part.digest, size: part.size, path: content.path(part.digest) });
		}
	}
	const confirmations = [...blobs.keys()].map((digest) => content.confirmation(digest as BlobFile["digest"]));
	const large = [...blobs.values()].filter(({ size }) => size >= smallBytes);

	const others = new AbortController();
	const options = { signal: AbortSignal.any([signal, others.signal]) };
	const jobs = [
		runToEnd<WriteOutputInput, Damage | undefined>(
			pool,
			"exporter/write-output",
			{ fd, content: { kind: "parts", parts: parts.map((part) => filePart(part, blobs, content)) } },
			options,
		),
		...inShares(large, pool.size).map((share) =>
			runToEnd<VerifyBlobsInput, Damage | undefined>(
				pool,
				"exporter/verify-blobs",
				{ blobs: share },
				options,
			),
		),
	];
	// All must have ended before anybody closes the file.
	let damage: Damage | undefined;
	let failure: { readonly error: unknown } | undefined;
	await Promise.all(
		jobs.map(async (job) => {
			try {
				const found = await job;
				if (found !== undefined) {
					damage ??= found;
					others.abort();
				}
			} catch (error) {
				failure ??= damage === undefined ? { error } : undefined;
				others.abort();
			}
		}),
	);
	if (failure !== undefined) {
		throw failure.error;
	}
	if (damage === undefined) {
		for (const confirm of confirmations) {
			confirm();
		}
	}
	return damage;
}

function filePart(
	part: ArchivePart,
	unknown: ReadonlyMap<string, BlobFile>,
	content: LocalContent,
): FilePart {
	if (part.kind === "bytes") {
		return part;
	}
	const verify = part.size < smallBytes && unknown.has(part.digest);
	return { ...part, verify, path: content.path(part.digest) };
}

/** At most `count` lists of about the same number of bytes, largest blobs first. */
function inShares(blobs: readonly BlobFile[], count: number): readonly (readonly BlobFile[])[] {
	const shares = Array.from({ length: count }, () => ({ bytes: 0, blobs: [] as BlobFile[] }));
	for (const blob of [...blobs].sort((one, other) => other.size - one.size)) {
		const [least] = shares.sort((one, other) => one.bytes - other.bytes);
		if (least !== undefined) {
			least.bytes += blob.size;
			least.blobs.push(blob);
		}
	}
	return shares.map((share) => share.blobs).filter((share) => share.length > 0);
}
