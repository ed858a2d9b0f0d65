/** What `JSON.stringify` writes as Go would: maps as objects, bytes as base64. */
export function goJsonValue(value: unknown): unknown {
	if (value instanceof Uint8Array) {
		return Buffer.from(value).toString("base64");
	}
	if (value instanceof Map) {
		return Object.fromEntries([...value].map(([key, each]) => [key, goJsonValue(each)]));
	}
	if (Array.isArray(value)) {
		return value.map(goJsonValue);
	}
	if (typeof value === "object" && value !== null) {
		return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, goJsonValue(each)]));
	}
	return value;
}
