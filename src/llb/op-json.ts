import type * as pb from "../api/generated/ops.ts";

/**
 * Messages as Go's encoding/json writes BuildKit's structs, for digests: fields in the order of the struct, named by
 * its tags, empty ones left out; a message that is there stays, also when it is empty.
 */
export function omitEmpty<T extends object>(fields: T): Partial<T> {
	return Object.fromEntries(Object.entries(fields).filter(([, value]) => !isEmpty(value))) as Partial<T>;
}

function isEmpty(value: unknown): boolean {
	switch (typeof value) {
		case "object":
			return (
				value === null ||
				(Array.isArray(value) && value.length === 0) ||
				(value instanceof Uint8Array && value.length === 0) ||
				(value instanceof Map && value.size === 0)
			);
		case "undefined":
			return true;
		default:
			return value === "" || value === 0 || value === 0n || value === false;
	}
}

export function execJson(exec: pb.ExecOp): object {
	return omitEmpty({
		meta: exec.meta && metaJson(exec.meta),
		mounts: exec.mounts.map(mountJson),
		network: exec.network,
		security: exec.security,
		secretenv: exec.secretenv.map(({ ID, name, optional }) => omitEmpty({ ID, name, optional })),
		cdiDevices: exec.cdiDevices.map(({ name, optional }) => omitEmpty({ name, optional })),
	});
}

function metaJson(meta: pb.Meta): object {
	const proxy = meta.proxyEnv;
	return omitEmpty({
		args: meta.args,
		env: meta.env,
		cwd: meta.cwd,
		user: meta.user,
		proxy_env:
			proxy &&
			omitEmpty({
				http_proxy: proxy.httpProxy,
				https_proxy: proxy.httpsProxy,
				ftp_proxy: proxy.ftpProxy,
				no_proxy: proxy.noProxy,
				all_proxy: proxy.allProxy,
			}),
		extraHosts: meta.extraHosts.map(({ Host, IP }) => omitEmpty({ Host, IP })),
		hostname: meta.hostname,
		ulimit: meta.ulimit.map(({ Name, Soft, Hard }) =>
			omitEmpty({ Name, Soft: BigInt(Soft), Hard: BigInt(Hard) }),
		),
		cgroupParent: meta.cgroupParent,
		removeMountStubsRecursive: meta.removeMountStubsRecursive,
		validExitCodes: meta.validExitCodes,
	});
}

function mountJson(mount: pb.Mount): object {
	const { TmpfsOpt, cacheOpt } = mount;
	return omitEmpty({
		input: mount.input,
		selector: mount.selector,
		dest: mount.dest,
		output: mount.output,
		readonly: mount.readonly,
		mountType: mount.mountType,
		TmpfsOpt: TmpfsOpt && omitEmpty({ size: TmpfsOpt.size }),
		cacheOpt: cacheOpt && omitEmpty({ ID: cacheOpt.ID, sharing: cacheOpt.sharing }),
		secretOpt: mount.secretOpt && fileOptionsJson(mount.secretOpt),
		SSHOpt: mount.SSHOpt && fileOptionsJson(mount.SSHOpt),
		resultID: mount.resultID,
		contentCache: mount.contentCache,
	});
}

function fileOptionsJson({ ID, uid, gid, mode, optional }: pb.SecretOpt | pb.SSHOpt): object {
	return omitEmpty({ ID, uid, gid, mode, optional });
}

export function chownJson({ user, group }: pb.ChownOpt): object {
	return omitEmpty({ user: user && userJson(user), group: group && userJson(group) });
}

/** This one has a method of its own in Go, with another layout than the message. */
function userJson({ user }: pb.UserOpt): object {
	switch (user?.$case) {
		case "byName": {
			const { name, input } = user.value;
			return { User: { byName: omitEmpty({ name, input }) } };
		}
		case "byID":
			return { User: omitEmpty({ byId: user.value }) };
		case undefined:
			return { User: {} };
	}
}

export function definitionJson({ def, metadata, Source }: pb.Definition): object {
	return omitEmpty({
		def,
		metadata: new Map([...metadata].map(([digest, own]) => [digest, metadataJson(own)])),
		Source: Source && sourceJson(Source),
	});
}

function metadataJson(metadata: pb.OpMetadata): object {
	const { exportCache, progressGroup: group, linuxResources: limits } = metadata;
	return omitEmpty({
		ignore_cache: metadata.ignoreCache,
		description: metadata.description,
		export_cache: exportCache && omitEmpty({ Value: exportCache.Value }),
		caps: metadata.caps,
		progress_group: group && omitEmpty({ id: group.id, name: group.name, weak: group.weak }),
		linux_resources:
			limits &&
			omitEmpty({
				memory: limits.memory,
				memorySwap: limits.memorySwap,
				cpuShares: limits.cpuShares,
				cpuPeriod: limits.cpuPeriod,
				cpuQuota: limits.cpuQuota,
				cpusetCpus: limits.cpusetCpus,
				cpusetMems: limits.cpusetMems,
			}),
	});
}

function sourceJson({ locations, infos }: pb.Source): object {
	return omitEmpty({
		locations: new Map([...locations].map(([digest, own]) => [digest, locationsJson(own)])),
		infos: infos.map(({ filename, data, definition, language }) =>
			omitEmpty({ filename, data, definition: definition && definitionJson(definition), language }),
		),
	});
}

function locationsJson({ locations }: pb.Locations): object {
	return omitEmpty({
		locations: locations.map(({ sourceIndex, ranges }) =>
			omitEmpty({
				sourceIndex,
				ranges: ranges.map(({ start, end }) =>
					omitEmpty({ start: start && positionJson(start), end: end && positionJson(end) }),
				),
			}),
		),
	});
}

function positionJson({ line, character }: pb.Position): object {
	return omitEmpty({ line, character });
}
