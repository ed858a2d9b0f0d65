import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { wrap } from "../errors/errors.ts";
import type { RegistryHostConfig } from "./registry.ts";

/**
 * Certificates as Docker and podman keep them: a directory for each registry host (`certs.d/host:port`), in which `*.crt` are
 * authorities to trust besides the system's, and `*.cert` with `*.key` are what to show. Earlier directories come first; what is
 * not there, or may not be read, counts as empty. A host that is named there speaks TLS.
 */
export function readCertsDirectories(
	directories: readonly string[],
): Readonly<Record<string, RegistryHostConfig>> {
	const hosts = new Map<string, Certificates>();
	for (const directory of directories) {
		for (const host of namesIn(directory)) {
			const { ca, keyPairs } = readHost(join(directory, host));
			const known = hosts.get(host) ?? { ca: [], keyPairs: [] };
			hosts.set(host, { ca: [...known.ca, ...ca], keyPairs: [...known.keyPairs, ...keyPairs] });
		}
	}
	const found = [...hosts].filter(([, { ca, keyPairs }]) => ca.length + keyPairs.length > 0);
	// Whoever has certificates for a registry of this very machine does not want plain http.
	return Object.fromEntries(found.map(([host, certificates]) => [host, { ...certificates, http: false }]));
}

interface Certificates {
	readonly ca: readonly string[];
	readonly keyPairs: readonly { readonly key: string; readonly certificate: string }[];
}

function readHost(directory: string): Certificates {
	const names = namesIn(directory);
	const read = (name: string): string => {
		try {
			return readFileSync(join(directory, name), "utf8");
		} catch (thrown) {
			throw wrap(thrown, `could not read ${join(directory, name)}`);
		}
	};
	return {
		ca: names.filter((name) => name.endsWith(".crt")).map(read),
		keyPairs: names
			.filter((name) => name.endsWith(".cert"))
			.map((name) => ({ certificate: read(name), key: read(`${name.slice(0, -".cert".length)}.key`) })),
	};
}

function namesIn(directory: string): readonly string[] {
	try {
		return existsSync(directory) ? readdirSync(directory).sort() : [];
	} catch {
		return [];
	}
}
