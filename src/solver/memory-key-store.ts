import type { Digest } from "../oci/digest.ts";
import type { KeyLink, KeyStore, ResultRecord } from "./solver.ts";

interface Node {
	/** By link, the keys that it leads to. */
	readonly links: Map<string, Set<string>>;
	readonly backlinks: Map<string, Set<string>>;
	readonly results: Map<string, ResultRecord>;
}

/** The graph of cache keys in memory: for tests, and for what need not outlive the process. */
export function createMemoryKeyStore(): KeyStore {
	const nodes = new Map<string, Node>();
	const keysOfResult = new Map<string, Set<string>>();

	function nodeOf(key: string): Node {
		let node = nodes.get(key);
		if (node === undefined) {
			node = { links: new Map(), backlinks: new Map(), results: new Map() };
			nodes.set(key, node);
		}
		return node;
	}

	/** Drops the key if it leads to nothing, and then the keys that led only to it. */
	function dropEmpty(start: string): void {
		const left = [start];
		for (let key = left.pop(); key !== undefined; key = left.pop()) {
			const node = nodes.get(key);
			if (node === undefined || node.results.size > 0 || node.links.size > 0) {
				continue;
			}
			nodes.delete(key);
			for (const [from, links] of node.backlinks) {
				for (const link of links) {
					dropTarget(nodeOf(from).links, link, key);
				}
				left.push(from);
			}
		}
	}

	return {
		targets(from, link) {
			return [...(nodes.get(from)?.links.get(encodeLink(link)) ?? [])];
		},
		results(key) {
			const results = [...(nodes.get(key)?.results.values() ?? [])];
			return results.length < 2 ? results : results.reverse().sort((a, b) => b.createdAt - a.createdAt);
		},
		hasKey(key) {
			return nodes.has(key);
		},
		backlinks(key) {
			return [...(nodes.get(key)?.backlinks ?? [])].flatMap(([from, links]) =>
				[...links].map((link) => ({ from, link: decodeLink(link) })),
			);
		},
		addLink(from, link, to) {
			const encoded = encodeLink(link);
			addTarget(nodeOf(from).links, encoded, to);
			addTarget(nodeOf(to).backlinks, from, encoded);
		},
		addResult(key, result) {
			const { results } = nodeOf(key);
			results.delete(result.id);
			results.set(result.id, result);
			addTarget(keysOfResult, result.id, key);
		},
		removeResult(resultId) {
			const keys = keysOfResult.get(resultId) ?? [];
			keysOfResult.delete(resultId);
			for (const key of keys) {
				nodes.get(key)?.results.delete(resultId);
				dropEmpty(key);
			}
		},
	};
}

function addTarget(map: Map<string, Set<string>>, key: string, value: string): void {
	const values = map.get(key);
	if (values === undefined) {
		map.set(key, new Set([value]));
	} else {
		values.add(value);
	}
}

function dropTarget(map: Map<string, Set<string>>, key: string, value: string): void {
	const values = map.get(key);
	if (values?.delete(value) && values.size === 0) {
		map.delete(key);
	}
}

/** No part but the last can have a space: numbers and digests. */
function encodeLink(link: KeyLink): string {
	return `${link.input} ${link.output} ${link.selector ?? ""} ${link.digest}`;
}

function decodeLink(encoded: string): KeyLink {
	const [input = "", output = "", selector = "", ...digest] = encoded.split(" ");
	return {
		input: Number(input),
		output: Number(output),
		digest: digest.join(" "),
		...(selector === "" ? {} : { selector: selector as Digest }),
	};
}
