import { SlipwayError } from "../errors/errors.ts";

/** `name=value` pairs of a repeatable flag. Throws `invalid-argument` for an empty name; a missing value is empty. */
export function keyValues(flag: string, texts: readonly string[]): readonly (readonly [string, string])[] {
	return texts.map((text) => {
		const equals = text.indexOf("=");
		const name = equals === -1 ? text : text.slice(0, equals);
		if (name === "") {
			throw new SlipwayError(
				"invalid-argument",
				`invalid key-value pair ${JSON.stringify(text)} for --${flag}: empty key`,
			);
		}
		return [name, equals === -1 ? "" : text.slice(equals + 1)] as const;
	});
}

/**
 * Build arguments: a name alone takes its value from the environment, and is left out if that has none. `SOURCE_DATE_EPOCH` of
 * the environment counts unless given.
 */
export function buildArguments(
	texts: readonly string[],
	env: Readonly<Record<string, string | undefined>>,
): ReadonlyMap<string, string> {
	const values = new Map<string, string>();
	for (const text of texts) {
		const [[name, value] = ["", ""]] = keyValues("build-arg", [text]);
		const found = text.includes("=") ? value : env[name];
		if (found !== undefined) {
			values.set(name, found);
		}
	}
	const epoch = env["SOURCE_DATE_EPOCH"];
	if (epoch !== undefined && epoch !== "" && !values.has("SOURCE_DATE_EPOCH")) {
		values.set("SOURCE_DATE_EPOCH", epoch);
	}
	return values;
}

const units: Readonly<Record<string, number>> = {
	"": 1,
	b: 1,
	k: 1024,
	m: 1024 ** 2,
	g: 1024 ** 3,
	t: 1024 ** 4,
	p: 1024 ** 5,
};

/** `64m`, `1.5GiB` as a number of bytes. Throws `invalid-argument` naming the flag. */
export function memoryBytes(flag: string, text: string): string {
	const match = /^(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?$/i.exec(text);
	const unit = units[(match?.[2] ?? "").toLowerCase()];
	if (match === null || unit === undefined) {
		throw new SlipwayError(
			"invalid-argument",
			`invalid size ${JSON.stringify(text)} for ${flag}: use a number with an optional unit such as 64m`,
		);
	}
	return String(Math.floor(Number(match[1]) * unit));
}

/** `host:ip`, `host=ip`, `host:[v6]`, several addresses separated by commas: the frontend's `host=ip,…`. */
export function hostEntries(texts: readonly string[]): string {
	return texts
		.flatMap((text) => {
			const equals = text.indexOf("=");
			const separator = equals === -1 ? text.indexOf(":") : equals;
			const host = text.slice(0, Math.max(0, separator));
			const addresses = text
				.slice(separator + 1)
				.split(",")
				.map((address) => address.trim().replace(/^\[(.*)\]$/, "$1"));
			if (host === "" || addresses.some((address) => !/^[0-9a-fA-F.:%]+$/.test(address))) {
				throw new SlipwayError(
					"invalid-argument",
					`invalid host ${JSON.stringify(text)} for --add-host: use host:ip`,
				);
			}
			return addresses.map((address) => `${host}=${address}`);
		})
		.join(",");
}

/** `nofile=1024:2048`; one number is both limits. */
export function ulimits(texts: readonly string[]): string {
	return texts
		.map((text) => {
			const match = /^([a-z]+)=(-?\d+)(?::(-?\d+))?$/.exec(text);
			if (match === null) {
				throw new SlipwayError("invalid-argument", `invalid ulimit argument: ${text}; use name=soft[:hard]`);
			}
			return `${match[1]}=${match[2]}:${match[3] ?? match[2]}`;
		})
		.join(",");
}
