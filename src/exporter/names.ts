import { wrap } from "../errors/errors.ts";
import { formatReference, parseReference, withDefaultTag } from "../oci/reference.ts";

/** Asks for the names that the frontend gives. */
export const frontendNames = "*";

/** The option `name` after the build; it may ask for the frontend's names. */
export function namesOf(option: string, metadata: Readonly<Record<string, string>>): string {
	return option === frontendNames ? (metadata["image.name"] ?? option) : option;
}

/** Full references of a list that is separated by commas; a name without tag and digest gets `latest`. Throws `invalid-argument`. */
export function normalizeNames(list: string): readonly string[] {
	return list === "" ? [] : list.split(",").map(normalizeName);
}

export function normalizeName(name: string): string {
	try {
		return formatReference(withDefaultTag(parseReference(name)));
	} catch (thrown) {
		throw wrap(thrown, `failed to parse ${name}`);
	}
}

/** Fails for a bad name before the build; names of the frontend are known only after it. */
export function checkNames(option: string): void {
	if (option !== frontendNames) {
		normalizeNames(option);
	}
}
