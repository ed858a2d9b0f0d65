import { SlipwayError } from "../errors/errors.ts";
import { compareUtf8 } from "../oci/utf8-order.ts";

/**
 * Capabilities: names of abilities that the graph's ops need. A client marks each op with those that it uses (in
 * the op's metadata), a server lists those that it has and refuses ops that need others.
 */
export interface Capability {
	readonly id: string;
	readonly status: CapabilityStatus;
	/** For messages. */
	readonly name?: string;
	/** By product: the version that brought it, for messages. */
	readonly since?: Readonly<Record<string, string>>;
}

export type CapabilityStatus = "stable" | "experimental" | "prerelease";

/** What a server says about a capability (`APICap` on the wire). */
export interface CapabilityState {
	readonly id: string;
	readonly enabled: boolean;
	readonly deprecated?: boolean;
	readonly disabledReason?: string;
	readonly disabledReasonMessage?: string;
	readonly disabledAlternative?: string;
}

/** What one server can, as a client sees it. */
export interface CapabilitySet {
	/** Known to us, known to the server, and enabled. */
	has(id: string): boolean;
	/** Throws `unimplemented` in the words that BuildKit's clients use. */
	require(id: string): void;
}

const experimental: readonly string[] = `
	source.image source.image.resolvemode source.image.layerlimit source.image.checksum
	source.local source.local.unique source.local.sessionid source.local.includepatterns source.local.followpaths
	source.local.excludepatterns source.local.sharedkeyhint source.local.differ source.local.metadatatransfer
	source.git source.git.keepgitdir source.git.fullurl source.git.httpauth source.git.knownsshhosts
	source.git.mountsshsock source.git.subdir source.git.checksum source.git.skipsubmodules
	source.git.signatureverify source.git.mtime source.git.fetchbycommit source.git.bundle source.git.checkoutbundle
	source.http source.http.checksum source.http.perm source.http.auth soruce.http.uidgid source.http.header
	source.http.signatureverify source.imageblob source.ocilayout source.buildop.llbfilename
	exec.meta.base exec.meta.cgroup.parent exec.meta.proxyenv exec.meta.network exec.meta.network.proxy
	exec.meta.setsdefaultpath exec.meta.security exec.meta.security.devices.v1 exec.meta.ulimit exec.meta.cdi
	exec.meta.linux.resources exec.mount.bind exec.mount.bind.readwrite-nooutput exec.mount.cache
	exec.mount.cache.sharing exec.mount.selector exec.mount.tmpfs exec.mount.tmpfs.size exec.mount.secret
	exec.mount.ssh exec.mount.cache.content exec.cgroup exec.secretenv exec.validexitcode
	file.rm.wildcard file.rm.nofollowsymlink file.copy.includeexcludepatterns file.copy.requiredpaths
	file.copy.alwaysreplaceexistingdestpaths file.symlink.create
	constraints platform meta.ignorecache meta.description meta.exportcache
	cache.gha cache.s3 cache.azblob mergeop diffop passthroughop
	exporter.image.annotations exporter.image.attestations exporter.multiple exporter.session
	source.policy source.policy.session gc.freespacefilter history.filter
`
	.trim()
	.split(/\s+/);

/**
 * Everything that BuildKit registers, by id. `soruce.http.uidgid` is misspelt on the wire. `file.copy.modestring` and
 * `exec.meta.removemountstubs.recursive` are left out as in BuildKit: its client never asks for them, and a definition
 * that does is refused.
 */
export const llbCapabilities: ReadonlyMap<string, Capability> = new Map(
	[
		...experimental.map((id): Capability => ({ id, status: "experimental" })),
		{
			id: "file.base",
			status: "prerelease",
			since: { docker: "Docker v19.03", buildkit: "BuildKit v0.5.0" },
		} as const,
		{ id: "exporter.sourcedateepoch", status: "experimental", name: "source date epoch" } as const,
	]
		.sort((a, b) => compareUtf8(a.id, b.id))
		.map((capability) => [capability.id, capability]),
);

/**
 * What of BuildKit's this server has not. These are left out rather than listed as disabled, since clients (docker buildx) look
 * for the name alone. Steps that need them anyway are refused by whatever would have to do it, with a reason.
 *
 * `exporter.image.attestations` is listed although there are none yet: without it docker buildx, bake and compose fail builds that
 * ask for provenance, which here succeed with a warning.
 */
const missing: ReadonlySet<string> = new Set([
	"exec.meta.network.proxy",
	"source.git.bundle",
	"source.git.checkoutbundle",
	"source.git.signatureverify",
	"source.http.signatureverify",
]);

/** What this server says about itself. */
export function listCapabilities(): readonly CapabilityState[] {
	return [...llbCapabilities.keys()].filter((id) => !missing.has(id)).map((id) => ({ id, enabled: true }));
}

/** Throws `unimplemented` if an op needs what this server has not. */
export function checkCapabilities(caps: Iterable<string>): void {
	for (const id of caps) {
		if (!llbCapabilities.has(id)) {
			throw new SlipwayError("unimplemented", `unknown API capability ${id}`);
		}
	}
}

export interface CapabilitySetOptions {
	/** What is to be updated, in messages. */
	readonly product?: string;
}

/** What a server has said about itself. */
export function createCapabilitySet(
	states: Iterable<CapabilityState>,
	{ product = "" }: CapabilitySetOptions = {},
): CapabilitySet {
	const byId = new Map([...states].map((state) => [state.id, state]));
	return {
		has: (id) => llbCapabilities.has(id) && (byId.get(id)?.enabled ?? false),
		require(id) {
			const problem = describeMissing(id, byId.get(id), product);
			if (problem !== undefined) {
				throw new SlipwayError("unimplemented", problem);
			}
		},
	};
}

/** The set of this server itself. */
export const ownCapabilities: CapabilitySet = createCapabilitySet(listCapabilities());

function describeMissing(
	id: string,
	state: CapabilityState | undefined,
	product: string,
): string | undefined {
	const capability = llbCapabilities.get(id);
	if (capability === undefined) {
		return `unknown API capability ${id}`;
	}
	if (state?.enabled) {
		return undefined;
	}
	const status = capability.status === "stable" ? "" : `${capability.status} `;
	const name = capability.name === undefined ? "" : `(${capability.name})`;
	const feature = `requested ${status}feature ${id} ${name}`;
	if (state !== undefined) {
		const reason = state.disabledReasonMessage ? `: ${state.disabledReasonMessage}` : "";
		return `${feature} has been disabled on the build server${reason}`;
	}
	const since = capability.since?.[product];
	const hint = since === undefined ? "" : ` (added in ${since})`;
	return `${feature} is not supported by build server${hint}, please update ${product}`;
}
