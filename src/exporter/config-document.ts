import { SlipwayError, wrap } from "../errors/errors.ts";
import type { Digest } from "../oci/digest.ts";
import { goJson, sortedKeys } from "../oci/go-json.ts";
import { formatGoTime } from "../oci/go-time.ts";
import { defaultPath, type ImageConfig, parseImageConfig } from "../oci/image-config.ts";
import type { Platform } from "../oci/platform.ts";
import {
	clampHistory,
	isAfter,
	type LayerFacts,
	normalizeHistory,
	readHistory,
	writeHistoryEntry,
} from "./history.ts";
import { splitObject } from "./raw-json.ts";

export interface ConfigInputs {
	/** The frontend's document; undefined or empty is the default one. */
	readonly config: Uint8Array | undefined;
	readonly baseConfig: Uint8Array | undefined;
	/** For the default document. */
	readonly defaultPlatform: Platform;
	readonly layers: readonly (LayerFacts & { readonly diffId: Digest })[];
	readonly epochSeconds: number | undefined;
	/** `moby.buildkit.cache.v0`. */
	readonly inlineCache?: Uint8Array | undefined;
}

/**
 * The image config as BuildKit writes it: layers, history and time of creation are put into the frontend's document, whose
 * other values stay as they are written; keys sorted, no white space. Throws `invalid-argument`.
 */
export function writeConfigDocument(inputs: ConfigInputs): Uint8Array {
	const { layers, epochSeconds } = inputs;
	const bytes =
		inputs.config === undefined || inputs.config.length === 0
			? defaultConfig(inputs.defaultPlatform)
			: inputs.config;
	const text = new TextDecoder().decode(bytes);
	if (text.trim() === "null") {
		throw new SlipwayError("invalid-argument", "invalid null image config for export");
	}
	const image = readConfig(bytes, "invalid image config for export");
	for (const [key, name] of [
		["os", "os"],
		["architecture", "architecture"],
	] as const) {
		if (image[key] === "") {
			throw new SlipwayError("invalid-argument", `invalid image config for export: missing ${name}`);
		}
	}

	let history = normalizeHistory(readHistory(image.history), layers);
	if (history !== undefined && epochSeconds !== undefined) {
		history = clampHistory(history, baseHistory(inputs.baseConfig), epochSeconds);
	}
	const diffIds = layers.length === 0 ? null : layers.map(({ diffId }) => diffId);
	const values = splitObject(text);
	values.set("rootfs", goJson({ type: "layers", diff_ids: diffIds }));
	values.set("history", history === undefined ? "null" : `[${history.map(writeHistoryEntry).join(",")}]`);
	const created = values.has("created")
		? clampedCreation(image.created, epochSeconds)
		: (history?.findLast((entry) => entry.created !== undefined)?.created ?? null);
	if (created !== undefined) {
		values.set("created", goJson(created));
	}
	if (inputs.inlineCache !== undefined) {
		values.set("moby.buildkit.cache.v0", goJson(inputs.inlineCache));
	}
	const fields = sortedKeys(values).map((key) => `${goJson(key)}:${values.get(key)}`);
	return new TextEncoder().encode(`{${fields.join(",")}}`);
}

/** Undefined leaves it as it is. */
function clampedCreation(created: string | undefined, epochSeconds: number | undefined): string | undefined {
	const late = created !== undefined && epochSeconds !== undefined && isAfter(created, epochSeconds);
	return late ? formatGoTime({ seconds: epochSeconds, nanos: 0 }) : undefined;
}

function baseHistory(config: Uint8Array | undefined): ReturnType<typeof readHistory> {
	return config === undefined || config.length === 0
		? undefined
		: readHistory(readConfig(config, "failed to unmarshal base image config").history);
}

function readConfig(bytes: Uint8Array, what: string): ImageConfig {
	try {
		return parseImageConfig(bytes);
	} catch (error) {
		throw wrap(error, what);
	}
}

function defaultConfig(platform: Platform): Uint8Array {
	const { architecture, os, variant, "os.version": version, "os.features": features } = platform;
	const document = goJson({
		architecture,
		os,
		"os.version": version,
		"os.features": features,
		variant,
		config: { Env: os === "windows" ? undefined : [`PATH=${defaultPath}`], WorkingDir: "/" },
		rootfs: { type: "layers", diff_ids: null },
	});
	return new TextEncoder().encode(document);
}
