import { parseGoDuration } from "../oci/go-duration.ts";
import { boolean, invalid } from "./attributes.ts";
import type { CacheOptions } from "./remotecache.ts";

/** `type=s3` (docs of BuildKit, README "S3 cache"). */
export interface S3Options {
	readonly bucket: string;
	readonly region: string;
	readonly prefix: string;
	readonly manifestsPrefix: string;
	readonly blobsPrefix: string;
	readonly names: readonly string[];
	/** Objects that are older are renewed, for rules that remove what is old. */
	readonly touchRefreshMs: number;
	readonly endpoint: string | undefined;
	readonly credentials:
		| { readonly accessKeyId: string; readonly secretAccessKey: string; readonly sessionToken?: string }
		| undefined;
	readonly usePathStyle: boolean;
	readonly retryMode: "standard" | "adaptive" | undefined;
	readonly maxAttempts: number | undefined;
	readonly maxUploads: number | undefined;
}

/** Throws `invalid-argument` with BuildKit's messages. */
export function parseS3Options(
	attrs: CacheOptions["attrs"],
	env: Readonly<Record<string, string | undefined>>,
): S3Options {
	const bucket = attrs["bucket"] ?? env["AWS_BUCKET"];
	if (bucket === undefined) {
		throw invalid("bucket ($AWS_BUCKET) not set for s3 cache");
	}
	const region = attrs["region"] ?? env["AWS_REGION"];
	if (region === undefined) {
		throw invalid("region ($AWS_REGION) not set for s3 cache");
	}
	// For a header that Google's storage changes after it was signed; it is not sent here in any case.
	boolean(attrs, "disable_accept_encoding");
	const retryMode = attrs["retry_mode"];
	if (retryMode !== undefined && retryMode !== "standard" && retryMode !== "adaptive") {
		throw invalid('retry_mode must be "standard" or "adaptive"');
	}
	const { access_key_id: accessKeyId = "", secret_access_key: secretAccessKey = "" } = attrs;
	const sessionToken = attrs["session_token"] ?? "";
	return {
		bucket,
		region,
		prefix: attrs["prefix"] ?? "",
		manifestsPrefix: attrs["manifests_prefix"] ?? "manifests/",
		blobsPrefix: attrs["blobs_prefix"] ?? "blobs/",
		names: (attrs["name"] ?? "buildkit").split(";"),
		touchRefreshMs: durationOf(attrs["touch_refresh"]),
		endpoint: attrs["endpoint_url"] || undefined,
		credentials:
			accessKeyId === "" || secretAccessKey === ""
				? undefined
				: { accessKeyId, secretAccessKey, ...(sessionToken === "" ? {} : { sessionToken }) },
		usePathStyle: boolean(attrs, "use_path_style") ?? false,
		retryMode,
		maxAttempts: positive(attrs, "retry_max_attempts"),
		maxUploads: positive(attrs, "upload_parallelism"),
	};
}

const dayMs = 24 * 60 * 60 * 1000;

/** BuildKit takes what it can't read for a day. */
function durationOf(text: string | undefined): number {
	try {
		return text === undefined ? dayMs : parseGoDuration(text) / 1e6;
	} catch {
		return dayMs;
	}
}

function positive(attrs: CacheOptions["attrs"], key: string): number | undefined {
	const text = attrs[key];
	if (text === undefined) {
		return undefined;
	}
	if (!/^\+?0*[1-9]\d{0,8}$/.test(text)) {
		throw invalid(`${key} must be a positive integer`);
	}
	return Number(text);
}
