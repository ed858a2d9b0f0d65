import { SlipwayError } from "../errors/errors.ts";
import { parseGoDuration } from "../oci/go-duration.ts";
import { invalid } from "./attributes.ts";
import type { CacheOptions } from "./remotecache.ts";

/** `type=gha` (docs of BuildKit, README "GitHub Actions cache"). */
export interface GhaOptions {
	readonly scope: string;
	readonly url: string;
	readonly token: string;
	/** Of the service's API: 1 is gone from GitHub's own, some others still have it. */
	readonly version: 1 | 2;
	/** How long to try again while the service says that there are too many requests. */
	readonly timeoutMs: number;
	/** What the token allows: branches, with 1 for read and 2 for write. */
	readonly scopes: readonly TokenScope[];
}

export interface TokenScope {
	readonly name: string;
	readonly permission: number;
}

/** Throws `invalid-argument` with BuildKit's messages. */
export function parseGhaOptions(attrs: CacheOptions["attrs"], nowMs: number): GhaOptions {
	const { token } = attrs;
	if (token === undefined) {
		throw invalid("token not set for github actions cache");
	}
	const wanted = attrs["version"];
	if (wanted !== undefined && !/^[+-]?\d+$/.test(wanted)) {
		throw invalid(`failed to parse api version ${JSON.stringify(wanted)}, expected positive integer`);
	}
	const secondUrl = wanted !== undefined && Number(wanted) === 1 ? undefined : attrs["url_v2"];
	const url = secondUrl ?? attrs["url"] ?? "";
	if (url === "") {
		throw invalid("url not set for github actions cache");
	}
	const isSecond =
		secondUrl !== undefined ||
		(wanted === undefined
			? url.includes("results-receiver.actions.githubusercontent.com")
			: Number(wanted) > 1);
	return {
		scope: attrs["scope"] ?? "buildkit",
		url: url.replace(/\/+$/, ""),
		token,
		version: isSecond ? 2 : 1,
		timeoutMs: timeoutOf(attrs["timeout"]),
		scopes: scopesOf(token, nowMs),
	};
}

const defaultTimeoutMs = 10 * 60 * 1000;

function timeoutOf(text: string | undefined): number {
	try {
		return text === undefined ? defaultTimeoutMs : parseGoDuration(text) / 1e6;
	} catch (error) {
		throw new SlipwayError(
			"invalid-argument",
			`failed to parse timeout for github actions cache: ${(error as Error).message}`,
			{ cause: error },
		);
	}
}

/** The claims of the token (JWT, RFC 7519). Its signature is the service's to check. */
function scopesOf(token: string, nowMs: number): readonly TokenScope[] {
	const [, payload = ""] = token.split(".");
	let claims: { readonly ac?: unknown; readonly exp?: unknown; readonly nbf?: unknown };
	try {
		claims = JSON.parse(Buffer.from(payload, "base64url").toString("utf8")) as typeof claims;
	} catch (error) {
		throw new SlipwayError("invalid-argument", "invalid token for github actions cache", { cause: error });
	}
	const { ac, exp, nbf } = claims ?? {};
	if (typeof ac !== "string") {
		throw invalid("invalid token without access controls");
	}
	if (typeof exp !== "number" || typeof nbf !== "number") {
		throw invalid("invalid token without expiration time");
	}
	if (nowMs > exp * 1000) {
		throw invalid(`cache token expired at ${new Date(exp * 1000).toISOString()}`);
	}
	if (nowMs < nbf * 1000) {
		throw invalid(`invalid token with future issue time ${new Date(nbf * 1000).toISOString()}`);
	}
	try {
		return (JSON.parse(ac) as { readonly Scope: unknown; readonly Permission: unknown }[]).map(
			({ Scope, Permission }) => ({ name: String(Scope), permission: Number(Permission) }),
		);
	} catch (error) {
		throw new SlipwayError("invalid-argument", "failed to parse token access controls", { cause: error });
	}
}
