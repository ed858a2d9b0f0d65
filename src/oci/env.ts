/** Environments as image configs and processes have them: a list of `KEY=value`, the first of a key counts. */
export type EnvList = readonly string[];

/** Key and value; a text without `=` is a key with an empty value. */
export function splitEnv(entry: string): readonly [key: string, value: string] {
	const equals = entry.indexOf("=");
	return equals === -1 ? [entry, ""] : [entry.slice(0, equals), entry.slice(equals + 1)];
}

export function getEnv(list: EnvList, key: string): string | undefined {
	const entry = list.find((each) => splitEnv(each)[0] === key);
	return entry === undefined ? undefined : splitEnv(entry)[1];
}

/** The list with the key set: replaced where it stood, else appended. */
export function setEnv(list: EnvList, key: string, value: string): string[] {
	const at = list.findIndex((each) => splitEnv(each)[0] === key);
	const entry = `${key}=${value}`;
	return at === -1 ? [...list, entry] : list.with(at, entry);
}

/** The list with the key set if it is not yet. */
export function setDefaultEnv(list: EnvList, key: string, value: string): string[] {
	return getEnv(list, key) === undefined ? setEnv(list, key, value) : [...list];
}
