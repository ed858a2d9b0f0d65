import type { Metadata } from "../api/grpc.ts";

/** Keys of `Control.Session`'s metadata, BuildKit's (session/session.go, grpc.go). */
export const sessionKeys = {
	id: "x-docker-expose-session-uuid",
	name: "x-docker-expose-session-name",
	sharedKey: "x-docker-expose-session-sharedkey",
	method: "x-docker-expose-session-grpc-method",
	healthTimeout: "x-buildkit-session-health-custom-timeout",
} as const;

/** Keys of the calls inside. */
export const callKeys = {
	directory: "dir-name",
	include: "include-patterns",
	exclude: "exclude-patterns",
	follow: "followpaths",
	exporterId: "buildkit-attachable-exporter-id",
	exporterResponse: "exporter-md-",
	multiPlatform: "buildkit-exporter-multi-platform",
	storeId: "buildkit-attachable-store-id",
	sshId: "buildkit.ssh.id",
	uploadPath: "urlpath",
	uploadHost: "urlhost",
} as const;

/** Where BuildKit's clients keep what an exporter writes blob by blob. */
export const exportStore = "export";

/** The wire's name of a content store: BuildKit's clients put layouts of build contexts apart from directories of caches. */
export function storeKey(id: string): string {
	return id.startsWith("local:") ? id : `oci:${id}`;
}

const encodedSuffix = "-encoded";
/** What a header can carry as it is, unless it begins or ends with a space. */
const plain = /^(?! )[\x20-\x7e]*(?<! )$/;

/** A list under its key; percent-encoded, all of it, if a header cannot carry one of its values. */
export function listMetadata(key: string, values: readonly string[]): Metadata {
	if (values.length === 0) {
		return {};
	}
	return values.every((value) => plain.test(value))
		? { [key]: values }
		: { [key]: values.map(queryEscape), [`${key}${encodedSuffix}`]: ["1"] };
}

/** The values under a key, decoded if the sender says that they are encoded. What cannot be decoded is empty, as in BuildKit. */
export function metadataList(metadata: Metadata, key: string): readonly string[] {
	const values = valuesOf(metadata, key);
	const flag = valuesOf(metadata, `${key}${encodedSuffix}`)[0];
	return flag !== undefined && /^(1|t|T|TRUE|true|True)$/.test(flag) ? values.map(queryUnescape) : values;
}

export function metadataValue(metadata: Metadata, key: string): string | undefined {
	return valuesOf(metadata, key)[0];
}

function valuesOf(metadata: Metadata, key: string): readonly string[] {
	return Object.hasOwn(metadata, key) ? (metadata[key] ?? []) : [];
}

/** Go's url.QueryEscape. */
function queryEscape(text: string): string {
	return encodeURIComponent(text.toWellFormed())
		.replace(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`)
		.replaceAll("%20", "+");
}

function queryUnescape(text: string): string {
	if (/%(?![0-9a-fA-F]{2})/.test(text)) {
		return "";
	}
	const bytes = text
		.replaceAll("+", " ")
		.replace(/%([0-9a-fA-F]{2})/g, (_all, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
	return Buffer.from(bytes, "latin1").toString("utf8");
}
