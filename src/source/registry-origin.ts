import type { BlobSources } from "../content/blob-sources.ts";
import type { ContentStore, ReadOptions } from "../content/content.ts";
import type { ImageStore } from "../content/image-store.ts";
import { SlipwayError } from "../errors/errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import { isIndexType, isManifestType } from "../oci/media-types.ts";
import {
	formatReference,
	parseReference,
	type Reference,
	referenceName,
	withDefaultTag,
} from "../oci/reference.ts";
import { createRegistryAuth, noCredentials, type RegistryAuth } from "../registry/auth.ts";
import type { RegistryClient, Repository } from "../registry/registry.ts";
import type { Session } from "../session/session.ts";
import {
	describeManifest,
	type ImageOrigin,
	keepBytes,
	keepDocument,
	keptDocument,
	preferKept,
} from "./image-origin.ts";
import type { ResolveMode } from "./source.ts";

/** What images from registries need. */
export interface ImageAccess {
	readonly registry: RegistryClient;
	readonly content: ContentStore;
	readonly images: ImageStore;
	readonly sources: BlobSources;
}

type Sessions = () => readonly Session[];

/**
 * An image by its name: in its registry, or among those kept here.
 *
 * - `pull` asks the registry;
 * - `default` too, and takes the image that is kept under the name if the registry cannot give it;
 * - `local` takes the kept one first.
 *
 * A name with a digest needs no registry once its documents were had from that repository, in any mode.
 */
export function imageOrigin(
	reference: Reference,
	mode: ResolveMode,
	access: ImageAccess,
	sessions: Sessions,
): ImageOrigin {
	const { content, images, sources } = access;
	const named = withDefaultTag(reference);
	const name = formatReference(named);
	const repositoryName = referenceName(named);
	const repository = (): Repository => openRepository(named, access, sessions);

	const keptImage = (): Descriptor | undefined => {
		const image = images.get(`${repositoryName}:${named.tag ?? "latest"}`)?.descriptor;
		return named.digest === undefined || image?.digest === named.digest ? image : undefined;
	};

	const keptByDigest = async (digest: Digest, signal: AbortSignal): Promise<Descriptor | undefined> => {
		const isKnown =
			sources.has(digest, repositoryName) || (mode !== "pull" && keptImage()?.digest === digest);
		const bytes = isKnown ? await keptDocument(content, digest, { signal }) : undefined;
		return bytes === undefined ? undefined : describeManifest(bytes, digest);
	};

	const fromRegistry = async (signal: AbortSignal): Promise<Descriptor> => {
		const found =
			named.digest === undefined
				? await repository().resolve(named.tag ?? "latest", { signal })
				: await repository().manifest(named.digest, { signal });
		const { descriptor, bytes } = found;
		if (bytes !== undefined) {
			await keepBytes(content, bytes, descriptor.digest, { signal });
		}
		sources.add(descriptor.digest, repositoryName);
		return descriptor;
	};

	return {
		name,
		resolve: async ({ signal }) => {
			const pinned = named.digest === undefined ? undefined : await keptByDigest(named.digest, signal);
			const kept = pinned ?? (mode === "local" ? keptImage() : undefined);
			if (kept !== undefined) {
				return kept;
			}
			try {
				return await fromRegistry(signal);
			} catch (thrown) {
				const instead = mode === "default" && !signal.aborted ? keptImage() : undefined;
				if (instead === undefined) {
					throw thrown;
				}
				return instead;
			}
		},

		document: async (descriptor, { signal }) => {
			const { digest, mediaType } = descriptor;
			const kept = await keptDocument(content, digest, { signal });
			if (kept !== undefined) {
				return kept;
			}
			let bytes: Uint8Array;
			if (isIndexType(mediaType) || isManifestType(mediaType)) {
				const found = await repository().manifest(digest, { signal });
				bytes = await keepBytes(content, found.bytes, digest, { signal });
			} else {
				bytes = await keepDocument(content, repository().blob(descriptor, { signal }), descriptor, {
					signal,
				});
			}
			sources.add(digest, repositoryName);
			return bytes;
		},

		layers: preferKept(content, (descriptor, options) =>
			readAnywhere(repositoriesOf(sources, descriptor.digest, named), descriptor, options, (reference) =>
				openRepository(reference, access, sessions),
			),
		),

		remember: (root, layers) => {
			if (sources.has(root, repositoryName)) {
				for (const { digest } of layers) {
					sources.add(digest, repositoryName);
				}
			}
		},
	};
}

/**
 * Where a layer may be had: where it is known to be, the image's own repository in front; that one last if it is not known. An
 * image that was built here has layers that only its base's repository has.
 */
function repositoriesOf(sources: BlobSources, digest: Digest, own: Reference): readonly Reference[] {
	const name = referenceName(own);
	const others = sources
		.repositories(digest)
		.filter((repository) => repository !== name)
		.map(parseReference);
	return sources.has(digest, name) ? [own, ...others] : [...others, own];
}

/** From the first repository that gives a byte. Throws what the first one said. */
async function* readAnywhere(
	repositories: readonly Reference[],
	descriptor: Descriptor,
	options: ReadOptions,
	open: (reference: Reference) => Repository,
): AsyncGenerator<Uint8Array, void> {
	let failure: unknown;
	for (const reference of repositories) {
		let started = false;
		try {
			for await (const chunk of open(reference).blob(descriptor, options)) {
				started = true;
				yield chunk;
			}
			return;
		} catch (thrown) {
			if (started || options.signal.aborted) {
				throw thrown;
			}
			failure ??= thrown;
		}
	}
	throw failure;
}

export function openRepository(
	reference: Reference,
	access: Pick<ImageAccess, "registry">,
	sessions: Sessions,
): Repository {
	return access.registry.repository(reference, { auth: authOf(sessions()) });
}

/** Tokens live as long as the session they were got for, and are used by nobody else. */
const auths = new WeakMap<Session, Map<string, RegistryAuth>>();
const anonymous = createRegistryAuth(noCredentials);

/** The logins of the sessions together: the first that has one for a host gives it. */
export function authOf(sessions: readonly Session[]): RegistryAuth {
	const [first] = sessions;
	if (first === undefined) {
		return anonymous;
	}
	const known = auths.get(first) ?? new Map<string, RegistryAuth>();
	auths.set(first, known);
	const key = sessions.map((session) => session.id).join(" ");
	const auth =
		known.get(key) ??
		createRegistryAuth(
			(host, options) => firstAnswer(sessions, (session) => session.auth.credentials(host, options)),
			(request, options) =>
				firstAnswer(sessions, async (session) => session.auth.tokens?.fetch(request, options)),
		);
	known.set(key, auth);
	return auth;
}

/** Of the first session that has one. */
async function firstAnswer<T>(
	sessions: readonly Session[],
	ask: (session: Session) => Promise<T | undefined>,
): Promise<T | undefined> {
	for (const session of sessions) {
		const answer = await ask(session).catch((thrown: unknown) => {
			// A client that offers no logins, or has gone.
			if (thrown instanceof SlipwayError && (thrown.code === "not-found" || session.closed.aborted)) {
				return undefined;
			}
			throw thrown;
		});
		if (answer !== undefined) {
			return answer;
		}
	}
	return undefined;
}
