import { SlipwayError } from "../errors/errors.ts";
import { type Digest, parseDigest } from "../oci/digest.ts";
import type { SourceRequest } from "./source.ts";

/** A download as the build asks for it. */
export interface HttpDownload {
	readonly url: string;
	readonly checksum: Digest | undefined;
	/** Empty: the server or the URL names the file. */
	readonly filename: string;
	/** 0 is the default, 0600. Only the nine permission bits are set on the file. */
	readonly perm: number;
	readonly uid: number;
	readonly gid: number;
	/** The secret that holds the whole `Authorization` header; empty: by the names of the host. */
	readonly authHeaderSecret: string;
	/** In the order of their names. */
	readonly header: readonly { readonly Name: string; readonly Value: string }[];
}

/** Other headers are ignored, as BuildKit does. */
const headerNames: Readonly<Record<string, string>> = {
	accept: "Accept",
	"user-agent": "User-Agent",
};

export function parseHttpDownload({ identifier, attrs }: SourceRequest): HttpDownload {
	const url = URL.parse(identifier);
	if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) {
		throw new SlipwayError("invalid-argument", `invalid http source ${JSON.stringify(identifier)}`);
	}
	refuseSignature(attrs);
	const checksum = attrs["http.checksum"];
	return {
		url: identifier,
		checksum: checksum === undefined ? undefined : parseDigest(checksum),
		filename: attrs["http.filename"] ?? "",
		perm: parseInteger(attrs, "http.perm"),
		uid: parseInteger(attrs, "http.uid"),
		gid: parseInteger(attrs, "http.gid"),
		authHeaderSecret: attrs["http.authheadersecret"] ?? "",
		header: parseHeader(attrs),
	};
}

function refuseSignature(attrs: Readonly<Record<string, string>>): void {
	const key = attrs["http.sig.pubkey"] ?? "";
	const signature = attrs["http.sig.signature"] ?? "";
	if ((key === "") !== (signature === "")) {
		throw new SlipwayError(
			"invalid-argument",
			"http signature verification requires both pubkey and signature",
		);
	}
	if (key !== "") {
		throw new SlipwayError(
			"unimplemented",
			"verifying signatures of downloads (http.sig.pubkey, http.sig.signature) is not supported; use a checksum",
		);
	}
}

function parseHeader(attrs: Readonly<Record<string, string>>): HttpDownload["header"] {
	const prefix = "http.header.";
	const header: { Name: string; Value: string }[] = [];
	for (const [key, Value] of Object.entries(attrs)) {
		const Name = key.startsWith(prefix) ? headerNames[key.slice(prefix.length).toLowerCase()] : undefined;
		if (Name === undefined) {
			continue;
		}
		if (/[^\t\x20-\x7e\x80-\xff]/.test(Value)) {
			throw new SlipwayError("invalid-argument", `invalid value of header ${Name}: ${JSON.stringify(Value)}`);
		}
		header.push({ Name, Value });
	}
	return header.sort((a, b) => (a.Name < b.Name ? -1 : 1));
}

/** As in Go source: decimal, `0o17` or `017`, `0x1f`, `0b1`, underscores between digits. */
export function parseInteger(attrs: Readonly<Record<string, string>>, name: string): number {
	const text = attrs[name];
	if (text === undefined) {
		return 0;
	}
	const match = /^([+-]?)(0[xXoObB]|0(?=_?[0-9]))?_?([0-9a-fA-F]+(?:_[0-9a-fA-F]+)*)$/.exec(text);
	const [, sign, base = "", digits = ""] = match ?? [];
	const prefix = base === "0" ? "0o" : base.toLowerCase();
	// Number() refuses digits that the base does not have.
	const value = match === null ? Number.NaN : Number(prefix + digits.replaceAll("_", ""));
	if (!Number.isSafeInteger(value)) {
		throw new SlipwayError("invalid-argument", `invalid ${name} ${JSON.stringify(text)}, expected a number`);
	}
	return sign === "-" ? -value : value;
}
