import { invalid } from "./attributes.ts";
import type { CacheOptions } from "./remotecache.ts";

/** `type=azblob` (docs of BuildKit, README "Azure Blob Storage cache"). */
export interface AzureOptions {
	readonly accountUrl: string;
	readonly accountName: string;
	readonly login: AzureLogin;
	readonly container: string;
	readonly prefix: string;
	readonly manifestsPrefix: string;
	readonly blobsPrefix: string;
	readonly names: readonly string[];
}

/** `signature`: a shared access signature in the URL. `environment`: whatever Azure's default chain of credentials finds where the builder runs. */
export type AzureLogin =
	| { readonly kind: "key"; readonly key: string }
	| { readonly kind: "signature" }
	| { readonly kind: "environment" };

/** Throws `invalid-argument` with BuildKit's messages. */
export function parseAzureOptions(
	attrs: CacheOptions["attrs"],
	env: Readonly<Record<string, string | undefined>>,
): AzureOptions {
	const accountUrl = attrs["account_url"] ?? env["BUILDKIT_AZURE_STORAGE_ACCOUNT_URL"];
	if (accountUrl === undefined) {
		throw invalid(
			`failed to create azblob config: either \${BUILDKIT_AZURE_STORAGE_ACCOUNT_URL} or account_url attribute is required for azblob cache`,
		);
	}
	const url = URL.parse(accountUrl);
	if (url === null || (url.protocol !== "https:" && url.protocol !== "http:")) {
		throw invalid("failed to create azblob config: azure storage account url provided is not a valid url");
	}
	const accountName =
		attrs["account_name"] ?? env["BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME"] ?? url.hostname.split(".")[0] ?? "";
	if (accountName === "") {
		throw invalid(
			`failed to create azblob config: unable to retrieve account name from account url or \${BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME} or account_name attribute for azblob cache`,
		);
	}
	const key = attrs["secret_access_key"] ?? "";
	const login: AzureLogin =
		key !== "" ? { kind: "key", key } : { kind: url.searchParams.has("sig") ? "signature" : "environment" };
	if (login.kind === "environment" && url.protocol === "http:") {
		throw invalid(
			"azblob cache at an account_url without TLS needs secret_access_key or a shared access signature: other logins would be shown to everybody on the way",
		);
	}
	return {
		accountUrl,
		accountName,
		login,
		container: attrs["container"] ?? env["BUILDKIT_AZURE_STORAGE_CONTAINER"] ?? "buildkit-cache",
		prefix: attrs["prefix"] ?? env["BUILDKIT_AZURE_STORAGE_PREFIX"] ?? "",
		manifestsPrefix: attrs["manifests_prefix"] ?? "manifests",
		blobsPrefix: attrs["blobs_prefix"] ?? "blobs",
		names: (attrs["name"] ?? "buildkit").split(";"),
	};
}
