import { SlipwayError, wrap } from "../errors/errors.ts";
import { formatPlatformAll, parsePlatform } from "../oci/platform.ts";

const typePattern = /^([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?$/;
const types = ["index", "index-descriptor", "manifest", "manifest-descriptor"];

/**
 * `--annotation [type[platform],…:]key=value` as options of exporters: `annotation-<type>[<platform>].<key>`. Throws
 * `invalid-argument` with buildx's messages.
 */
export function annotationOptions(texts: readonly string[]): Readonly<Record<string, string>> {
	const options: Record<string, string> = {};
	for (const text of texts.filter((each) => each !== "")) {
		const equals = text.indexOf("=");
		if (equals === -1) {
			throw invalid(`invalid annotation ${JSON.stringify(text)}, expected key=value`);
		}
		const name = text.slice(0, equals);
		const value = text.slice(equals + 1);
		const colon = name.indexOf(":");
		if (colon === -1) {
			options[`annotation.${name}`] = value;
			continue;
		}
		const key = name.slice(colon + 1);
		for (const place of name.slice(0, colon).split(",")) {
			options[`annotation${placeOption(place)}.${key}`] = value;
		}
	}
	return options;
}

function placeOption(place: string): string {
	const [, type, platform] = typePattern.exec(place) ?? [];
	if (type === undefined) {
		throw invalid(
			`invalid annotation type ${JSON.stringify(place)}, expected type and optional platform in square brackets`,
		);
	}
	if (!types.includes(type)) {
		throw invalid(`unknown annotation type ${JSON.stringify(type)}`);
	}
	return platform === undefined ? `-${type}` : `-${type}[${platformText(platform)}]`;
}

function platformText(text: string): string {
	try {
		return formatPlatformAll(parsePlatform(text));
	} catch (thrown) {
		throw wrap(thrown, `parse annotations: invalid platform ${JSON.stringify(text)}`);
	}
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", `parse annotations: ${message}`);
}
