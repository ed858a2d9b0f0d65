/** What `--metadata-file` takes of a build's response. */
export interface MetadataSource {
	readonly exporterResponse: Readonly<Record<string, string>>;
	readonly metadata: Readonly<Record<string, Uint8Array>>;
}

/** As buildx writes it: base64 of JSON objects is written as what it is. */
export function metadataJson({ exporterResponse, metadata }: MetadataSource): string {
	const decoder = new TextDecoder();
	const answers = Object.entries(metadata)
		.filter(([key]) => key === "version" || key.startsWith("result."))
		.map(([key, value]) => [key, decoder.decode(value)] as const);
	const entries = [...Object.entries(exporterResponse), ...answers].map(
		([key, value]) => [key, metadataValue(value)] as const,
	);
	return JSON.stringify(Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1))), undefined, 2);
}

function metadataValue(text: string): unknown {
	if (!/^[A-Za-z0-9+/]+={0,2}$/.test(text) || text.length % 4 !== 0) {
		return text;
	}
	try {
		const value: unknown = JSON.parse(Buffer.from(text, "base64").toString("utf8"));
		return typeof value === "object" && value !== null ? value : text;
	} catch {
		return text;
	}
}
