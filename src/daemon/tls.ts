import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSecureContext, type TlsOptions } from "node:tls";
import { SlipwayError, wrap } from "../errors/errors.ts";
import type { TlsFiles } from "./config.ts";

/** From the paths that flags and files give. Undefined: no TLS. Throws for half a pair. */
export function tlsFiles(cert = "", key = "", ca = ""): TlsFiles | undefined {
	if (cert === "" && key === "") {
		return undefined;
	}
	if (cert === "" || key === "") {
		throw new SlipwayError("invalid-argument", "you must specify key and cert file if one is specified");
	}
	return { cert, key, ...(ca === "" ? {} : { ca }) };
}

/** With an authority, clients without a certificate of it are refused. */
export function serverTls({ cert, key, ca }: TlsFiles): TlsOptions {
	const pair = { cert: read(cert, "certificate"), key: read(key, "key") };
	try {
		createSecureContext(pair);
	} catch (error) {
		throw wrap(error, `could not load server key pair ${cert}, ${key}`, { code: "invalid-argument" });
	}
	const options: TlsOptions = { ...pair, ALPNProtocols: ["h2"], minVersion: "TLSv1.2" };
	if (ca === undefined) {
		return options;
	}
	const authority = read(ca, "ca certificate");
	try {
		new X509Certificate(authority);
	} catch (error) {
		throw wrap(error, `failed to append ca cert ${ca}`, { code: "invalid-argument" });
	}
	return { ...options, ca: authority, requestCert: true, rejectUnauthorized: true };
}

function read(path: string, what: string): Buffer {
	try {
		return readFileSync(path);
	} catch (error) {
		throw wrap(error, `could not read ${what}`);
	}
}
