import { resolve } from "node:path";
import { SlipwayError } from "../../errors/errors.ts";
import { csvFields } from "../../oci/csv-fields.ts";
import type { TokenServerTls } from "../../session/token-authority.ts";

/**
 * `--registry-auth-tlscontext host=…,ca=…,cert=…,key=…,insecure=…`, by host; several of one host add up. Throws
 * `invalid-argument` with the messages of BuildKit's client.
 */
export function parseRegistryTls(texts: readonly string[], cwd: string): ReadonlyMap<string, TokenServerTls> {
	const byHost = new Map<string, TokenServerTls>();
	for (const text of texts) {
		const { host, ca, cert, key, insecure } = parseEntry(text);
		const before = byHost.get(host) ?? { insecure: false, authorities: [], pairs: [] };
		byHost.set(host, {
			insecure: before.insecure || insecure,
			authorities: [...before.authorities, ...(ca === "" ? [] : [resolve(cwd, ca)])],
			pairs: [
				...before.pairs,
				...(cert === "" || key === "" ? [] : [{ cert: resolve(cwd, cert), key: resolve(cwd, key) }]),
			],
		});
	}
	return byHost;
}

const flag = "--registry-auth-tlscontext";

function parseEntry(text: string): {
	readonly host: string;
	readonly ca: string;
	readonly cert: string;
	readonly key: string;
	readonly insecure: boolean;
} {
	const values: Record<string, string> = {};
	for (const field of csvFields(text)) {
		const equals = field.indexOf("=");
		if (equals === -1) {
			throw invalid(`invalid value ${field}`);
		}
		values[field.slice(0, equals).toLowerCase()] = field.slice(equals + 1);
	}
	const { host = "", ca = "", cert = "", key = "" } = values;
	const insecure = /^(?:1|t|true)$/i.test(values["insecure"] ?? "");
	if (host === "") {
		throw invalid(`${flag} requires host=<host>`);
	}
	if (ca === "" && !insecure && (cert === "" || key === "")) {
		throw invalid(`${flag} requires ca=<ca> or cert=<cert>,key=<key> or insecure=true`);
	}
	if (ca !== "" && (cert === "") !== (key === "")) {
		throw invalid(`${flag} requires cert=<cert>,key=<key>`);
	}
	return { host, ca, cert, key, insecure };
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
