import { constants } from "node:fs";
import type { Stat } from "../../api/generated/fsutil.ts";
import {
	type Attestation,
	AttestationKind,
	InTotoSubjectKind,
	type ResolveSourceMetaRequest,
	type ResolveSourceMetaResponse,
} from "../../api/generated/gateway.ts";
import { SlipwayError } from "../../errors/errors.ts";
import { fromPlatformMessage } from "../../llb/op-from-message.ts";
import type {
	FrontendAttestation,
	FrontendEntry,
	FrontendRef,
	ResolvedSource,
	ResolveSourceRequest,
} from "../frontend.ts";
import { fromPolicyMessage } from "./policy-message.ts";

/** The kernel's types of files in Go's bits; a socket has none, as in BuildKit. */
const goTypeBits: ReadonlyMap<number, number> = new Map([
	[constants.S_IFDIR, 2 ** 31],
	[constants.S_IFLNK, 2 ** 27],
	[constants.S_IFBLK, 2 ** 26],
	[constants.S_IFCHR, 2 ** 26 + 2 ** 21],
	[constants.S_IFIFO, 2 ** 25],
]);

/** Go's os.FileMode. */
function goMode(mode: number): number {
	return (
		(mode & 0o777) +
		(goTypeBits.get(mode & constants.S_IFMT) ?? 0) +
		(mode & 0o4000 ? 2 ** 23 : 0) +
		(mode & 0o2000 ? 2 ** 22 : 0) +
		(mode & 0o1000 ? 2 ** 20 : 0)
	);
}

export function statMessage(entry: FrontendEntry): Stat {
	return {
		path: entry.name,
		mode: goMode(entry.mode),
		uid: entry.uid,
		gid: entry.gid,
		size: entry.size,
		modTime: entry.modifiedNs,
		linkname: entry.linkTarget,
		devmajor: entry.deviceMajor,
		devminor: entry.deviceMinor,
		xattrs: new Map([...entry.xattrs].filter(([name]) => !name.startsWith("com.apple."))),
	};
}

export function attestationMessage(
	{ kind, metadata, path, predicateType, subjects }: FrontendAttestation,
	ref: Attestation["ref"],
): Attestation {
	return {
		kind: kind === "in-toto" ? AttestationKind.InToto : AttestationKind.Bundle,
		metadata: new Map(Object.entries(metadata)),
		ref,
		path,
		inTotoPredicateType: predicateType,
		inTotoSubjects: subjects.map(({ kind: about, digests, name }) => ({
			kind: about === "self" ? InTotoSubjectKind.Self : InTotoSubjectKind.Raw,
			digest: digests,
			name,
		})),
	};
}

export function fromAttestationMessage(
	message: Attestation,
	ref: FrontendRef | undefined,
): FrontendAttestation {
	return {
		kind: message.kind === AttestationKind.Bundle ? "bundle" : "in-toto",
		metadata: Object.fromEntries(message.metadata),
		ref,
		path: message.path,
		predicateType: message.inTotoPredicateType,
		subjects: message.inTotoSubjects.map(({ kind, digest, name }) => ({
			kind: kind === InTotoSubjectKind.Raw ? "raw" : "self",
			digests: digest,
			name,
		})),
	};
}

/** Empty is the default; what is none is BuildKit's default too. */
export function resolveModeOf(text: string): ResolveSourceRequest["mode"] {
	return text === "pull" || text === "local" ? text : "default";
}

const checksums = ["sha256", "sha384", "sha512"] as const;

export function resolveSourceRequest(message: ResolveSourceMetaRequest): ResolveSourceRequest {
	const { Source: source, Platform: platform, LogName: logName } = message;
	if (source === undefined) {
		throw new SlipwayError("invalid-argument", "source is required");
	}
	const checksum = message.HTTP?.ChecksumRequest;
	if (message.Image?.AttestationChain || (message.Image?.ResolveAttestations.length ?? 0) > 0) {
		throw new SlipwayError("unimplemented", `attestations of ${source.identifier} can't be resolved yet`);
	}
	return {
		source,
		platform: platform === undefined ? undefined : fromPlatformMessage(platform),
		mode: resolveModeOf(message.ResolveMode),
		...(logName === "" ? {} : { logName }),
		sourcePolicies: message.SourcePolicies.map(fromPolicyMessage),
		noConfig: message.Image?.NoConfig ?? false,
		gitObject: message.Git?.ReturnObject ?? false,
		...(checksum === undefined
			? {}
			: { httpChecksum: { algorithm: checksums[checksum.Algo] ?? "sha256", suffix: checksum.Suffix } }),
	};
}

export function resolvedSourceMessage({
	source,
	image,
	git,
	http,
}: ResolvedSource): ResolveSourceMetaResponse {
	const empty = new Uint8Array();
	return {
		Source: { identifier: source.identifier, attrs: new Map(source.attrs) },
		Image: image && { Digest: image.digest, Config: image.config ?? empty, AttestationChain: undefined },
		Git: git && {
			Checksum: git.checksum,
			Ref: git.ref,
			CommitChecksum: git.commitChecksum,
			CommitObject: git.commitObject ?? empty,
			TagObject: git.tagObject ?? empty,
		},
		HTTP: http && {
			Checksum: http.digest,
			Filename: http.filename,
			LastModified: http.lastModified === undefined ? undefined : { seconds: http.lastModified, nanos: 0 },
			ChecksumResponse: http.checksum && { Digest: http.checksum.digest, Suffix: http.checksum.suffix },
		},
	};
}
