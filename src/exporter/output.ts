import { fstatSync } from "node:fs";
import type { TarPart } from "../archive/archive.ts";
import { verified } from "../content/bytes.ts";
import type { ContentStore, LocalContent } from "../content/content.ts";
import { hasCode, SlipwayError, toError } from "../errors/errors.ts";
import type { OutputStream, SessionOutput } from "../session/session.ts";
import type { ArchivePart } from "./archive-parts.ts";
import { copyParts } from "./copy-blobs.ts";
import type { ExportContext, ExporterServices } from "./exporter.ts";
import { type Damage, discardDamaged } from "./layer-files.ts";
import { runToEnd } from "./run-to-end.ts";
import type { WriteOutputInput } from "./write-output.job.ts";

/** How errors name a form of output. */
const formNames: Readonly<Record<Exclude<SessionOutput["kind"], "remote">, string>> = {
	stream: "file writer",
	directory: "directory",
	tree: "directory",
	store: "store",
};

/** The client's place for this exporter, which must be of the form that the exporter can write to. */
export function outputOf<K extends "stream" | "directory" | "store">(
	{ session, index }: ExportContext,
	form: K,
	exporter: string,
): OutputOfForm<K> {
	const found = session.output(index);
	const output = found?.kind === "remote" ? formOf(found, form) : found;
	if (output === undefined) {
		throw new SlipwayError(
			"invalid-argument",
			`output ${formNames[form]} is required for ${exporter} exporter`,
		);
	}
	if (output.kind !== form && !(output.kind === "tree" && form === "directory")) {
		throw new SlipwayError(
			"invalid-argument",
			`output ${formNames[output.kind]} is not supported by ${exporter} exporter`,
		);
	}
	return output as OutputOfForm<K>;
}

function formOf(
	remote: Extract<SessionOutput, { kind: "remote" }>,
	form: "stream" | "directory" | "store",
): Exclude<SessionOutput, { kind: "remote" }> {
	switch (form) {
		case "stream":
			return remote.stream;
		case "directory":
			return remote.tree;
		case "store":
			return remote.store;
	}
}

/** A directory may be on this host or be sent to. */
type OutputOfForm<K> = Extract<SessionOutput, { kind: K extends "directory" ? "directory" | "tree" : K }>;

/**
 * Opens the client's stream, writes and closes it; nothing of it stays after a failure. A client that answers that it has the
 * result already (`already-exists`) is content.
 */
export async function withStream(
	output: Extract<SessionOutput, { kind: "stream" }>,
	metadata: Readonly<Record<string, string>>,
	write: (stream: OutputStream) => Promise<void>,
): Promise<void> {
	let stream: OutputStream | undefined;
	try {
		stream = await output.open(metadata);
		await write(stream);
		await stream.close();
	} catch (thrown) {
		await stream?.abort().catch(() => {});
		if (!hasCode(thrown, "already-exists")) {
			throw toError(thrown);
		}
	}
}

/** Writes an image's archive. A blob that is damaged on disk is an error and is removed, so that the next build makes it anew. */
export async function writeArchive(
	stream: OutputStream,
	parts: readonly ArchivePart[],
	services: Pick<ExporterServices, "content" | "pool">,
	signal: AbortSignal,
): Promise<void> {
	const { content } = services;
	const damage = isRegularFile(stream.fd)
		? await copyParts(stream.fd, parts, services, signal)
		: await streamParts(stream, parts, content, signal);
	if (damage !== undefined) {
		throw await discardDamaged(content, damage);
	}
}

/** Writes a tar of trees. */
export async function writeTrees(
	stream: OutputStream,
	parts: readonly TarPart[],
	services: Pick<ExporterServices, "archiver" | "pool">,
	signal: AbortSignal,
): Promise<void> {
	if (isRegularFile(stream.fd)) {
		await runToEnd<WriteOutputInput, undefined>(
			services.pool,
			"exporter/write-output",
			{ fd: stream.fd, content: { kind: "trees", parts } },
			{ signal },
		);
		return;
	}
	for await (const chunk of services.archiver.tar(parts, { signal })) {
		await stream.write(chunk);
	}
}

/** A pipe may block its writer for ever, which must not happen to a thread that others wait for. */
function isRegularFile(fd: number | undefined): fd is number {
	return fd !== undefined && fstatSync(fd).isFile();
}

async function streamParts(
	stream: OutputStream,
	parts: readonly ArchivePart[],
	content: ContentStore & LocalContent,
	signal: AbortSignal,
): Promise<Damage | undefined> {
	for (const part of parts) {
		if (part.kind === "bytes") {
			await stream.write(part.bytes);
			continue;
		}
		if (content.isConfirmed(part.digest)) {
			await writeChunks(stream, content.read(part.digest, { signal }));
			continue;
		}
		const confirm = content.confirmation(part.digest);
		const damage = await readVerified(content, part, signal, (chunks) => writeChunks(stream, chunks));
		if (damage !== undefined) {
			return damage;
		}
		confirm();
	}
	return undefined;
}

/** The same as chunks, for whoever asks for them. A damaged blob is an error there too, and is removed. */
export async function* archiveChunks(
	parts: readonly ArchivePart[],
	content: ContentStore & LocalContent,
	signal: AbortSignal,
): AsyncGenerator<Uint8Array, void> {
	for (const part of parts) {
		if (part.kind === "bytes") {
			yield part.bytes;
			continue;
		}
		const { digest, size } = part;
		const confirm = content.confirmation(digest);
		try {
			const chunks = content.read(digest, { signal, reuse: true });
			yield* content.isConfirmed(digest) ? chunks : verified(chunks, { digest, size });
		} catch (thrown) {
			const { code, message } = toError(thrown);
			if (code === "data-loss" || code === "not-found") {
				throw await discardDamaged(content, { digest, found: message });
			}
			throw thrown;
		}
		confirm();
	}
}

async function writeChunks(stream: OutputStream, chunks: AsyncIterable<Uint8Array>): Promise<void> {
	for await (const chunk of chunks) {
		await stream.write(chunk);
	}
}

/** Hands a blob's chunks on. What is wrong with the blob is the answer; other errors are thrown. */
async function readVerified(
	content: ContentStore,
	{ digest, size }: { readonly digest: Damage["digest"]; readonly size: number },
	signal: AbortSignal,
	consume: (chunks: AsyncIterable<Uint8Array>) => Promise<void>,
): Promise<Damage | undefined> {
	let damage: SlipwayError | undefined;
	async function* chunks(): AsyncGenerator<Uint8Array, void> {
		try {
			yield* verified(content.read(digest, { signal }), { digest, size });
		} catch (thrown) {
			const error = toError(thrown);
			if (error.code === "data-loss" || error.code === "not-found") {
				damage = error;
			}
			throw error;
		}
	}
	try {
		await consume(chunks());
	} catch (thrown) {
		if (damage === undefined) {
			throw thrown;
		}
	}
	return damage === undefined ? undefined : { digest, found: damage.message };
}
