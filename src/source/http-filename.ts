/** What the file of a download is called: the wish of the build, else of the server, else the end of the URL. */
export function downloadName(options: {
	readonly url: string;
	/** Attribute `http.filename`; empty is none. */
	readonly wanted: string;
	readonly contentDisposition: string | undefined;
}): string {
	if (options.wanted !== "") {
		return safeFileName(options.wanted);
	}
	const offered = dispositionFilename(options.contentDisposition ?? "");
	if (offered !== undefined && offered !== "" && !offered.endsWith("/")) {
		return safeFileName(offered);
	}
	return safeFileName(urlBase(options.url));
}

/** One component that stays in its directory; what cannot be one is `download`. */
export function safeFileName(text: string): string {
	const name = baseName(text.trim());
	return name === "" || name === "." || name === ".." || /[\u0000-\u001f\u007f-\u009f]/.test(name)
		? "download"
		: name;
}

function baseName(path: string): string {
	const trimmed = path.replace(/\/+$/, "");
	return trimmed.slice(trimmed.lastIndexOf("/") + 1);
}

/** From the text itself: a URL object has `..` resolved already, and BuildKit's name is part of its cache keys. */
function urlBase(url: string): string {
	const path = /^[a-z]+:\/\/[^/?#]*([^?#]*)/.exec(url)?.[1] ?? "";
	return baseName(decodePercent(path)?.toString("utf8") ?? "");
}

/** Undefined if a `%` has no two hex digits behind it. */
function decodePercent(text: string): Buffer | undefined {
	if (/%(?![0-9A-Fa-f]{2})/.test(text)) {
		return undefined;
	}
	const bytes: Buffer[] = text
		.split(/(%[0-9A-Fa-f]{2})/)
		.map((part) => (part.startsWith("%") ? Buffer.from(part.slice(1), "hex") : Buffer.from(part)));
	return Buffer.concat(bytes);
}

const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const parameterPattern = new RegExp(
	`\\s*;\\s*(${token})\\s*=\\s*(?:(${token})|"((?:[^"\\\\]|\\\\.)*)")`,
	"sy",
);

/**
 * The parameter `filename` of a Content-Disposition header, RFC 6266, with its continued and encoded forms of RFC 2231.
 * Undefined if there is none or the header is malformed: then the server has said nothing.
 */
export function dispositionFilename(header: string): string | undefined {
	const kind = new RegExp(`^\\s*${token}(?:/${token})?`).exec(header);
	if (kind === null) {
		return undefined;
	}
	const parameters = new Map<string, string>();
	let at = kind[0].length;
	for (;;) {
		parameterPattern.lastIndex = at;
		const match = parameterPattern.exec(header);
		if (match === null) {
			break;
		}
		const name = (match[1] ?? "").toLowerCase();
		const value = match[2] ?? unquote(match[3] ?? "");
		if (parameters.has(name) && parameters.get(name) !== value) {
			return undefined;
		}
		parameters.set(name, value);
		at = parameterPattern.lastIndex;
	}
	return /^\s*;?\s*$/.test(header.slice(at)) ? joinFilename(parameters) : undefined;
}

/** As browsers send Windows paths unescaped, only a quote and a backslash are escaped by one. */
function unquote(text: string): string {
	return text.replace(/\\(["\\])/g, "$1");
}

function joinFilename(parameters: ReadonlyMap<string, string>): string | undefined {
	const encoded = parameters.get("filename*");
	if (encoded !== undefined) {
		const decoded = decodeExtended(encoded);
		if (decoded !== undefined) {
			return decoded;
		}
	}
	const plain = parameters.get("filename");
	if (plain !== undefined) {
		return plain;
	}
	let joined: string | undefined;
	for (let part = 0; ; part++) {
		const literal = parameters.get(`filename*${part}`);
		const escaped = parameters.get(`filename*${part}*`);
		if (literal === undefined && escaped === undefined) {
			return joined;
		}
		// Only the first piece names the character set.
		const piece =
			literal ??
			(part === 0 ? decodeExtended(escaped ?? "") : decodePercent(escaped ?? "")?.toString("utf8"));
		joined = (joined ?? "") + (piece ?? "");
	}
}

/** `UTF-8'en'na%C3%AFve`. */
function decodeExtended(text: string): string | undefined {
	const [charset = "", language, value] = text.split("'", 3);
	if (language === undefined || value === undefined || !/^(?:utf-8|us-ascii)$/i.test(charset)) {
		return undefined;
	}
	return decodePercent(value)?.toString("utf8");
}
