import { SlipwayError } from "../errors/errors.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import { newIdentity } from "../oci/identity.ts";
import { hostPlatform, type Platform } from "../oci/platform.ts";
import type { CapabilitySet } from "./capabilities.ts";
import {
	type Constraints,
	customNameKey,
	type Definition,
	type LocatedFile,
	type MappedFile,
	type MappedLocation,
	type MarshalledOp,
	type NodeOutput,
	type OpMetadata,
	type Output,
	type SourceLocation,
	type SourceMap,
} from "./llb.ts";
import { nodeToOp } from "./node-to-op.ts";
import type { Input } from "./op.ts";
import { encodeOp, encodeTerminalOp } from "./op-message.ts";
import type { Node } from "./ops.ts";

export interface MarshalOptions {
	/** For ops that have none of their own; the platform's default is this machine's. */
	readonly constraints?: Constraints;
	/** What the server can; absent: it is not asked, and no fallback is used. */
	readonly caps?: CapabilitySet;
	/** Tells apart local directories of one name in two builds; default: random. */
	readonly localUniqueId?: string;
}

/**
 * The definition of an output; undefined is scratch, whose definition is empty. Takes time in proportion to the
 * number of nodes, whatever their depth. Throws `internal` for a deferred output that leads back to itself.
 */
export function marshal(output: Output | undefined, options: MarshalOptions = {}): Definition {
	if (output === undefined) {
		return { ops: [], metadata: new Map() };
	}
	return new Marshalling(options).definition(output);
}

interface Marshalled {
	readonly op: MarshalledOp;
	readonly metadata: OpMetadata | undefined;
	readonly locations: readonly SourceLocation[];
}

/** One call of `marshal`. */
class Marshalling {
	readonly #options: MarshalOptions;
	readonly #base: Constraints;
	readonly #platform: Platform;
	readonly #localUniqueId: string;
	readonly #deferred = new Map<Output, NodeOutput>();
	/** In the order of the definition. */
	readonly #done = new Map<Node, Marshalled>();

	constructor(options: MarshalOptions) {
		this.#options = options;
		this.#base = options.constraints ?? {};
		this.#platform = this.#base.platform ?? hostPlatform();
		this.#localUniqueId = options.localUniqueId ?? newIdentity();
	}

	definition(output: Output): Definition {
		const root = this.#resolve(output);
		this.#visit(root.node);

		const ops = new Map<Digest, MarshalledOp>();
		const metadata = new Map<string, OpMetadata>();
		const sources = new SourceCollector();
		for (const each of this.#done.values()) {
			const { op } = each;
			ops.set(op.digest, ops.get(op.digest) ?? op);
			if (each.metadata !== undefined) {
				metadata.set(op.digest, mergeMetadata(metadata.get(op.digest) ?? emptyMetadata, each.metadata));
			}
			sources.add(op.digest, each.locations);
		}

		const bytes = encodeTerminalOp(this.#inputOf(root));
		const terminal = { digest: sha256(bytes), bytes };
		const caps = terminalCaps(metadata.values());
		metadata.set(terminal.digest, { ...emptyMetadata, caps });
		const source = sources.finish((file) =>
			file.output === undefined ? undefined : marshal(file.output, this.#options),
		);
		return {
			ops: [...ops.values(), terminal],
			metadata,
			...(source === undefined ? {} : { source }),
		};
	}

	#resolve(output: Output): NodeOutput {
		if (output.kind === "node") {
			return output;
		}
		let resolved = this.#deferred.get(output);
		if (resolved === undefined) {
			let at = output.resolve();
			for (const seen = new Set<Output>([output]); at.kind === "deferred"; at = at.resolve()) {
				if (seen.has(at)) {
					throw new SlipwayError("internal", "a deferred output leads back to itself");
				}
				seen.add(at);
			}
			resolved = at;
			this.#deferred.set(output, resolved);
		}
		return resolved;
	}

	/** Inputs first; by a stack of its own, because chains may be deeper than the call stack. */
	#visit(root: Node): void {
		const open = new Set<Node>([root]);
		const stack = [{ node: root, next: 0 }];
		for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
			const input = top.node.inputs[top.next++];
			if (input === undefined) {
				this.#done.set(top.node, this.#marshalNode(top.node));
				open.delete(top.node);
				stack.pop();
				continue;
			}
			const { node } = this.#resolve(input);
			if (this.#done.has(node)) {
				continue;
			}
			if (open.has(node)) {
				throw new SlipwayError("internal", "a deferred output leads back to itself");
			}
			open.add(node);
			stack.push({ node, next: 0 });
		}
	}

	#marshalNode(node: Node): Marshalled {
		const { constraints } = node;
		const locations = constraints.locations ?? [];
		if (node.kind === "definition") {
			return { op: node.op, metadata: node.metadata, locations: node.locations };
		}
		const inherited = node.kind === "exec" ? node.process.platform : undefined;
		const { op, caps } = nodeToOp(node, {
			platform: constraints.platform ?? inherited ?? this.#platform,
			basePlatform: this.#platform,
			filters: [...(this.#base.filters ?? []), ...(constraints.filters ?? [])],
			caps: this.#options.caps,
			localUniqueId: this.#localUniqueId,
			inputOf: (output) => this.#inputOf(this.#resolve(output)),
		});
		const bytes = encodeOp(op);
		const metadata = mergeMetadata(metadataOf(this.#base, []), metadataOf(constraints, caps));
		return { op: { digest: sha256(bytes), bytes }, metadata, locations };
	}

	#inputOf({ node, index }: NodeOutput): Input {
		const marshalled = this.#done.get(node);
		if (marshalled === undefined) {
			throw new SlipwayError("internal", `a ${node.kind} node uses an output that is not among its inputs`);
		}
		return { digest: marshalled.op.digest, index };
	}
}

const emptyMetadata: OpMetadata = { ignoreCache: false, description: new Map(), caps: new Set() };

function metadataOf(constraints: Constraints, caps: readonly string[]): OpMetadata {
	const { name, description = {}, exportCache, progressGroup, linuxResources } = constraints;
	return {
		ignoreCache: constraints.ignoreCache ?? false,
		description: new Map([
			...Object.entries(description),
			...(name === undefined ? [] : [[customNameKey, name] as const]),
		]),
		caps: new Set(caps),
		...(exportCache === undefined ? {} : { exportCache }),
		...(progressGroup === undefined ? {} : { progressGroup }),
		...(linuxResources === undefined ? {} : { linuxResources }),
	};
}

/** What `over` says wins; marks add up. */
function mergeMetadata(under: OpMetadata, over: OpMetadata): OpMetadata {
	return {
		...under,
		...over,
		ignoreCache: under.ignoreCache || over.ignoreCache,
		description:
			over.description.size === 0 ? under.description : new Map([...under.description, ...over.description]),
		caps: over.caps.size === 0 ? under.caps : new Set([...under.caps, ...over.caps]),
	};
}

/** The capabilities of metadata itself stand with the terminal op. */
function terminalCaps(all: Iterable<OpMetadata>): ReadonlySet<string> {
	const caps = new Set(["constraints", "platform"]);
	for (const { ignoreCache, description, exportCache } of all) {
		if (ignoreCache) {
			caps.add("meta.ignorecache");
		}
		if (description.size > 0) {
			caps.add("meta.description");
		}
		if (exportCache !== undefined) {
			caps.add("meta.exportcache");
		}
	}
	return caps;
}

/** Gathers the files that ops come from; files of equal name, language and content are one. */
class SourceCollector {
	readonly #files: LocatedFile[] = [];
	readonly #indexes = new Map<LocatedFile, number>();
	readonly #locations = new Map<string, MappedLocation[]>();

	add(digest: Digest, locations: readonly SourceLocation[]): void {
		if (locations.length === 0) {
			return;
		}
		const own = this.#locations.get(digest) ?? [];
		own.push(...locations.map(({ file, ranges }) => ({ file: this.#indexOf(file), ranges })));
		this.#locations.set(digest, own);
	}

	#indexOf(file: LocatedFile): number {
		let index = this.#indexes.get(file);
		if (index === undefined) {
			const equal = this.#files.findIndex((other) => isSameFile(other, file));
			index = equal === -1 ? this.#files.push(file) - 1 : equal;
			this.#indexes.set(file, index);
		}
		return index;
	}

	finish(definitionOf: (file: LocatedFile) => Definition | undefined): SourceMap | undefined {
		if (this.#files.length === 0) {
			return undefined;
		}
		const files = this.#files.map((file): MappedFile => {
			const definition = definitionOf(file);
			return {
				filename: file.filename,
				data: file.data,
				...(file.language === undefined ? {} : { language: file.language }),
				...(definition === undefined ? {} : { definition }),
			};
		});
		return { files, locations: this.#locations };
	}
}

function isSameFile(a: LocatedFile, b: LocatedFile): boolean {
	return (
		a.filename === b.filename && a.language === b.language && Buffer.from(a.data).equals(Buffer.from(b.data))
	);
}
