import { hash } from "node:crypto";
import { SlipwayError } from "../errors/errors.ts";
import { type Digest, isDigest } from "../oci/digest.ts";
import { goJson } from "../oci/go-json.ts";
import { formatGoTime, goTimeToMs, parseGoTime } from "../oci/go-time.ts";
import { compareUtf8 } from "../oci/utf8-order.ts";
import type { CacheChains, ChainItem } from "./chains.ts";
import type {
	CacheBlob,
	CacheConfig,
	CacheResult,
	ConfigLayer,
	ConfigRecord,
	ExportedCache,
	LayerAnnotations,
} from "./remotecache.ts";

/** What Go writes for a time that nobody has set. */
export const zeroTime: number = Date.parse("0001-01-01T00:00:00Z");

/** BuildKit reads no more than 1 MiB of a config that is in a manifest; more is accepted here. */
export const maxConfigBytes: number = 32 << 20;

/**
 * The graph as a document: equal graphs give equal bytes. Layers are in the order of their blobs, records in that of their
 * digests, as BuildKit sorts them. Records that lost all alternatives of an input are left out, with what is above them.
 */
export function toConfig(chains: CacheChains): ExportedCache {
	const items = inOrder(chains);
	const layers = new LayerTable();
	const names = new Map<ChainItem, string>();
	for (const item of items) {
		names.set(item, canonicalName(item, names));
	}
	const drafts = items.map((item) => ({
		item,
		inputs: item.inputs.map((links) => sortedLinks(links, names)),
		// The newest result is enough: nobody asks for another one.
		result: item.results.find((result) => result.layers.length > 0),
	}));
	drafts.sort((a, b) => compareDrafts(a, b, names));
	const numbers = new Map(drafts.map(({ item }, index) => [item, index]));
	for (const { result } of drafts) {
		if (result !== undefined) {
			layers.add(result.layers);
		}
	}
	layers.sort();
	const records = drafts.map(
		({ item, inputs, result }): ConfigRecord => ({
			digest: item.digest,
			results:
				result === undefined ? [] : [{ layer: layers.numberOf(result.layers), createdAt: result.createdAt }],
			chains: [],
			inputs: inputs.map((links) =>
				links
					.map(({ from, selector }) => ({ selector, link: numbers.get(from) ?? -1 }))
					.sort((a, b) => a.link - b.link),
			),
		}),
	);
	return { config: { layers: layers.list(), records }, blobs: layers.blobs };
}

/** Inputs first; without items of which some input has no alternative left. */
function inOrder(chains: CacheChains): readonly ChainItem[] {
	const ordered: ChainItem[] = [];
	const state = new Map<ChainItem, "open" | "done" | "refused">();
	for (const start of chains.items) {
		const stack = [start];
		for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
			if (state.has(top) && state.get(top) !== "open") {
				stack.pop();
				continue;
			}
			state.set(top, "open");
			const missing = top.inputs.flat().filter(({ from }) => !state.has(from));
			if (missing.length > 0) {
				stack.push(...missing.map(({ from }) => from));
				continue;
			}
			stack.pop();
			const isWhole = top.inputs.every((links) => links.some(({ from }) => state.get(from) === "done"));
			state.set(top, isWhole ? "done" : "refused");
			if (isWhole) {
				ordered.push(top);
			}
		}
	}
	return ordered;
}

interface Draft {
	readonly item: ChainItem;
	readonly inputs: readonly ChainItem["inputs"][number][];
	readonly result: CacheResult | undefined;
}

type Names = ReadonlyMap<ChainItem, string>;

/** Equal for items with equal digests all the way down. */
function canonicalName({ digest, inputs }: ChainItem, names: Names): string {
	if (inputs.length === 0) {
		return digest;
	}
	const parts = inputs.map((links) =>
		links
			.map(({ from, selector }) => `${names.get(from) ?? ""} ${selector}`)
			.sort(compareUtf8)
			.join(","),
	);
	return hash("sha256", [digest, ...parts].join("\n"));
}

function sortedLinks(links: ChainItem["inputs"][number], names: Names): ChainItem["inputs"][number] {
	return links
		.filter(({ from }) => names.has(from))
		.sort(
			(a, b) =>
				compareUtf8(a.selector, b.selector) ||
				compareUtf8(a.from.digest, b.from.digest) ||
				compareUtf8(names.get(a.from) ?? "", names.get(b.from) ?? ""),
		);
}

function compareDrafts(a: Draft, b: Draft, names: Names): number {
	const byDigest = compareUtf8(a.item.digest, b.item.digest) || a.inputs.length - b.inputs.length;
	if (byDigest !== 0) {
		return byDigest;
	}
	for (const [index, links] of a.inputs.entries()) {
		const others = b.inputs[index] ?? [];
		if (links.length !== others.length) {
			return links.length - others.length;
		}
		for (const [place, link] of links.entries()) {
			const other = others[place];
			const order =
				compareUtf8(link.selector, other?.selector ?? "") ||
				compareUtf8(link.from.digest, other?.from.digest ?? "");
			if (order !== 0) {
				return order;
			}
		}
	}
	return compareUtf8(names.get(a.item) ?? "", names.get(b.item) ?? "");
}

/** Each blob on each stack of parents once. */
class LayerTable {
	readonly blobs = new Map<Digest, CacheBlob>();
	readonly #stacks = new Map<string, { readonly blob: Digest; readonly parent: string }>();
	#numbers = new Map<string, number>();

	add(layers: readonly CacheBlob[]): void {
		let parent = "";
		for (const layer of layers) {
			const { digest } = layer.descriptor;
			const stack = `${digest} ${parent}`;
			this.#stacks.set(stack, { blob: digest, parent });
			this.blobs.set(digest, layer);
			parent = stack;
		}
	}

	sort(): void {
		this.#numbers = new Map([...this.#stacks.keys()].sort(compareUtf8).map((stack, index) => [stack, index]));
	}

	numberOf(layers: readonly CacheBlob[]): number {
		const stack = layers.reduce((below, { descriptor }) => `${descriptor.digest} ${below}`, "");
		return this.#numbers.get(stack) ?? -1;
	}

	list(): readonly ConfigLayer[] {
		return [...this.#numbers.keys()].map((stack) => {
			const { blob, parent } = this.#stacks.get(stack) ?? { blob: "" as Digest, parent: "" };
			return { blob, parent: this.#numbers.get(parent) ?? -1 };
		});
	}
}

/** JSON as BuildKit writes it: empty lists, empty selectors and a `parent` of 0 are left out. */
export function writeConfig({ layers, records }: CacheConfig): Uint8Array {
	return encode({
		layers: nonEmpty(
			layers.map(({ blob, parent, annotations }) => ({
				blob,
				parent: parent === 0 ? undefined : parent,
				annotations: annotations === undefined ? undefined : annotationsDocument(annotations),
			})),
		),
		records: nonEmpty(records.map(recordDocument)),
	});
}

/** The records alone, as an image carries them. */
export function writeRecords(records: readonly ConfigRecord[]): Uint8Array {
	return encode(records.map(recordDocument));
}

function annotationsDocument({ mediaType, diffId, size, createdAt }: LayerAnnotations): object {
	return {
		mediaType: mediaType || undefined,
		diffID: diffId,
		size: size || undefined,
		createdAt: formatGoTime(createdAt),
	};
}

function recordDocument({ results, chains, digest, inputs }: ConfigRecord): object {
	return {
		layers: nonEmpty(results.map(({ layer, createdAt }) => ({ layer, createdAt: formatGoTime(createdAt) }))),
		chains: nonEmpty(chains.map(({ layers, createdAt }) => ({ layers, createdAt: formatGoTime(createdAt) }))),
		digest,
		inputs: nonEmpty(
			inputs.map((links) => links.map(({ selector, link }) => ({ selector: selector || undefined, link }))),
		),
	};
}

function nonEmpty<T>(list: readonly T[]): readonly T[] | undefined {
	return list.length === 0 ? undefined : list;
}

function encode(document: object): Uint8Array {
	return new TextEncoder().encode(goJson(document));
}

/** Throws `invalid-argument` for what is no config, however it came about. */
export function parseConfig(bytes: Uint8Array): CacheConfig {
	if (bytes.length > maxConfigBytes) {
		throw invalid(`it has ${bytes.length} bytes, more than ${maxConfigBytes}`);
	}
	const document = objectOf(parseJson(bytes), "");
	return {
		layers: listOf(document["layers"], "layers").map(readLayer),
		records: listOf(document["records"], "records").map(readRecord),
	};
}

/** The other half of `writeRecords`. */
export function parseRecords(bytes: Uint8Array): readonly ConfigRecord[] {
	return listOf(parseJson(bytes), "records").map(readRecord);
}

function parseJson(bytes: Uint8Array): unknown {
	try {
		return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
	} catch (error) {
		throw invalid(`it is no JSON: ${(error as Error).message}`, error);
	}
}

function readLayer(value: unknown, index: number): ConfigLayer {
	const where = `layers[${index}]`;
	const layer = objectOf(value, where);
	const annotations = layer["annotations"];
	return {
		blob: digestOf(layer["blob"], `${where}.blob`),
		parent: integerOf(layer["parent"] ?? 0, `${where}.parent`),
		...(annotations === undefined || annotations === null
			? {}
			: { annotations: readAnnotations(annotations, `${where}.annotations`) }),
	};
}

function readAnnotations(value: unknown, where: string): LayerAnnotations {
	const fields = objectOf(value, where);
	const { diffID, mediaType } = fields;
	return {
		mediaType: typeof mediaType === "string" ? mediaType : "",
		diffId: diffID === undefined || diffID === "" ? undefined : digestOf(diffID, `${where}.diffID`),
		size: integerOf(fields["size"] ?? 0, `${where}.size`),
		createdAt: timeOf(fields["createdAt"]),
	};
}

function readRecord(value: unknown, index: number): ConfigRecord {
	const where = `records[${index}]`;
	const record = objectOf(value, where);
	const digest = record["digest"];
	if (typeof digest !== "string" || digest === "") {
		throw invalid(`${where} has no digest`);
	}
	return {
		digest,
		results: listOf(record["layers"], `${where}.layers`).map((each) => {
			const result = objectOf(each, `${where}.layers`);
			return {
				layer: integerOf(result["layer"] ?? 0, `${where}.layers`),
				createdAt: timeOf(result["createdAt"]),
			};
		}),
		chains: listOf(record["chains"], `${where}.chains`).map((each) => {
			const chain = objectOf(each, `${where}.chains`);
			return {
				layers: listOf(chain["layers"], `${where}.chains`).map((layer) =>
					integerOf(layer, `${where}.chains`),
				),
				createdAt: timeOf(chain["createdAt"]),
			};
		}),
		inputs: listOf(record["inputs"], `${where}.inputs`).map((links, input) =>
			listOf(links, `${where}.inputs[${input}]`).map((each) => {
				const { selector, link } = objectOf(each, `${where}.inputs[${input}]`);
				return {
					selector: typeof selector === "string" ? selector : "",
					link: integerOf(link ?? 0, `${where}.inputs[${input}]`),
				};
			}),
		),
	};
}

function objectOf(value: unknown, where: string): Readonly<Record<string, unknown>> {
	if (typeof value !== "object" || value === null || Array.isArray(value)) {
		throw invalid(`${where || "it"} is no object`);
	}
	return value as Record<string, unknown>;
}

/** Go writes a list that it has not made as `null`. */
function listOf(value: unknown, where: string): readonly unknown[] {
	if (value === undefined || value === null) {
		return [];
	}
	if (!Array.isArray(value)) {
		throw invalid(`${where} is no list`);
	}
	return value;
}

function integerOf(value: unknown, where: string): number {
	if (typeof value !== "number" || !Number.isSafeInteger(value)) {
		throw invalid(`${where} has ${JSON.stringify(value)} in place of a number`);
	}
	return value;
}

function digestOf(value: unknown, where: string): Digest {
	if (typeof value !== "string" || !isDigest(value)) {
		throw invalid(`${where} is no digest`);
	}
	return value;
}

/** A time that can't be read is as good as none. */
function timeOf(value: unknown): number {
	try {
		return typeof value === "string" ? goTimeToMs(parseGoTime(value)) : zeroTime;
	} catch {
		return zeroTime;
	}
}

function invalid(reason: string, cause?: unknown): SlipwayError {
	return new SlipwayError("invalid-argument", `invalid cache config: ${reason}`, { cause });
}
