import { redactUrl } from "../errors/errors.ts";

/** What of a cache's place may be told again: all but logins, tokens and keys, whose names other backends than ours may have, too. */
const toldOfCaches: ReadonlySet<string> = new Set([
	"ref",
	"src",
	"digest",
	"tag",
	"mode",
	"bucket",
	"region",
	"name",
	"prefix",
	"blobs_prefix",
	"manifests_prefix",
	"endpoint_url",
	"account_url",
	"account_name",
	"container",
	"scope",
	"url",
	"url_v2",
	"version",
	"repository",
]);

/** A frontend's options as they are kept in the history: without the keys of caches and the passwords of URLs. */
export function recordedAttributes(options: Readonly<Record<string, string>>): Map<string, string> {
	return new Map(
		Object.entries(options).map(([name, value]) => [
			name,
			name === "cache-imports" ? recordedCaches(value) : withoutLogin(value),
		]),
	);
}

/** buildx's JSON of `--cache-from`; what is not that says nothing. */
function recordedCaches(json: string): string {
	try {
		const entries = JSON.parse(json) as readonly { readonly Type: string; readonly Attrs?: object }[];
		return JSON.stringify(
			entries.map(({ Type, Attrs }) => ({
				Type,
				Attrs: Object.fromEntries(
					Object.entries(Attrs ?? {})
						.filter(([name]) => toldOfCaches.has(name))
						.map(([name, value]) => [name, withoutLogin(String(value))]),
				),
			})),
		);
	} catch {
		return "";
	}
}

function withoutLogin(value: string): string {
	return /^[a-z][a-z0-9+.-]*:\/\/[^/]*@/i.test(value) ? redactUrl(value) : value;
}
