import * as pb from "../api/generated/ops.ts";
import { SlipwayError, wrap } from "../errors/errors.ts";
import { type Digest, sha256 } from "../oci/digest.ts";
import { hostPlatform, type Platform } from "../oci/platform.ts";
import { checkCapabilities } from "./capabilities.ts";
import { messageOf } from "./definition-message.ts";
import {
	customNameKey,
	type Definition,
	type LoadedDefinition,
	type LoadedOp,
	type LoadedSource,
	type SourceMap,
} from "./llb.ts";
import type { Op } from "./op.ts";
import { fromOpMessage } from "./op-from-message.ts";
import { rememberMessage } from "./op-message.ts";

export interface LoadOptions {
	/** Of execs that have none; default: this machine's. */
	readonly platform?: Platform;
	/** Replaces sources before digests are computed, as source policies do. */
	readonly mapSource?: (source: NamedSource, original: Digest) => NamedSource;
}

export interface NamedSource {
	readonly identifier: string;
	readonly attrs: ReadonlyMap<string, string>;
}

/**
 * Checks a definition of any origin and computes its digests anew, from deterministic bytes. Takes time in proportion
 * to the number of ops, whatever their depth. Throws `invalid-argument`, or `unimplemented` for a capability that is
 * missing, with a `vertex` detail where one op is to blame.
 */
export function load(definition: Definition, options: LoadOptions = {}): LoadedDefinition {
	const last = definition.ops.at(-1);
	if (last === undefined) {
		throw invalid("invalid empty definition");
	}
	const messages = decodeOps(definition, options);
	const renamed = recomputeDigests(messages);
	const ops = new Map<string, RenamedOp>();
	for (const op of renamed.values()) {
		ops.set(op.digest, ops.get(op.digest) ?? op);
	}
	if (ops.size < 2) {
		throw invalid(`invalid LLB with ${ops.size} vertexes`);
	}
	const terminal = renamed.get(last.digest);
	const root = terminal?.message.inputs[0];
	if (terminal === undefined || root === undefined) {
		throw invalid("invalid LLB with no inputs on last vertex");
	}
	if (terminal.message.inputs.length > 1) {
		throw new SlipwayError("internal", `invalid last vertex inputs: ${terminal.message.inputs.length}`);
	}
	ops.delete(terminal.digest);
	const loaded = loadReachable(root.digest, ops, definition, options.platform ?? hostPlatform());
	return { ops: loaded, root: { digest: root.digest as Digest, index: root.index } };
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}

function decodeOps({ ops }: Definition, { mapSource }: LoadOptions): ReadonlyMap<string, pb.Op> {
	const messages = new Map<string, pb.Op>();
	for (const { digest, bytes } of ops) {
		let message: pb.Op;
		try {
			message = pb.Op.decode(bytes);
		} catch (error) {
			throw new SlipwayError("invalid-argument", `failed to parse llb proto op: ${messageOf(error)}`, {
				cause: error,
				details: [{ kind: "vertex", digest }],
			});
		}
		for (const [number, { index }] of message.inputs.entries()) {
			if (index < 0) {
				throw invalid(`invalid input ${number} output index ${index}`);
			}
		}
		if (mapSource !== undefined && message.op?.$case === "source") {
			const { identifier, attrs } = mapSource(message.op.value, digest);
			const value = { ...message.op.value, identifier, attrs: new Map(attrs) };
			message = { ...message, op: { $case: "source", value } };
		}
		messages.set(digest, message);
	}
	return messages;
}

interface RenamedOp {
	readonly digest: Digest;
	readonly original: Digest;
	readonly message: pb.Op;
}

/** By the original digest. Every op's inputs must be there, also of those that nothing needs. */
function recomputeDigests(messages: ReadonlyMap<string, pb.Op>): ReadonlyMap<string, RenamedOp> {
	const renamed = new Map<string, RenamedOp>();
	visitInputsFirst(messages.keys(), {
		inputsOf(digest) {
			const message = messages.get(digest);
			if (message === undefined) {
				throw invalid(`invalid missing input digest ${digest}`);
			}
			return message.inputs;
		},
		leave(original) {
			// `inputsOf` has found it, and its inputs were left before.
			const old = messages.get(original) ?? pb.emptyOp();
			const inputs = old.inputs.map((input) => ({
				...input,
				digest: renamed.get(input.digest)?.digest ?? input.digest,
			}));
			const message = { ...old, inputs };
			const digest = sha256(pb.Op.encode(message).finish());
			renamed.set(original, { digest, original: original as Digest, message });
		},
	});
	return renamed;
}

function loadReachable(
	root: string,
	ops: ReadonlyMap<string, RenamedOp>,
	{ metadata: allMetadata, source }: Definition,
	platform: Platform,
): ReadonlyMap<Digest, LoadedOp> {
	const parsed = new Map<string, Op>();
	const loaded = new Map<string, LoadedOp>();
	visitInputsFirst([root], {
		inputsOf(digest) {
			const op = ops.get(digest);
			if (op === undefined) {
				throw invalid(`invalid missing input digest ${digest}`);
			}
			parsed.set(
				digest,
				at(op, () => fromOpMessage(op.message)),
			);
			return op.message.inputs;
		},
		leave(digest) {
			const renamed = ops.get(digest);
			const op = parsed.get(digest);
			if (renamed === undefined || op === undefined) {
				return;
			}
			parsed.delete(digest);
			const metadata = allMetadata.get(renamed.original);
			at(renamed, () => checkCapabilities(metadata?.caps ?? []));
			loaded.set(digest, {
				digest: renamed.digest,
				originalDigest: renamed.original,
				op: rememberMessage(
					op.kind === "exec" && op.platform === undefined ? { ...op, platform } : op,
					renamed.message,
				),
				name: metadata?.description.get(customNameKey) ?? nameOf(op, loaded),
				...(metadata === undefined ? {} : { metadata }),
				sources: sourcesOf(renamed.original, source),
			});
		},
	});
	return loaded as ReadonlyMap<string, LoadedOp> as ReadonlyMap<Digest, LoadedOp>;
}

function at<T>({ digest }: RenamedOp, work: () => T): T {
	try {
		return work();
	} catch (error) {
		throw wrap(error, "", { details: [{ kind: "vertex", digest }] });
	}
}

interface Visitor {
	/** Called once per digest, before its inputs are visited. */
	inputsOf(digest: string): readonly pb.Input[];
	/** Called once per digest, after its inputs. */
	leave(digest: string): void;
}

/** By a stack of its own, because chains may be deeper than the call stack. */
function visitInputsFirst(roots: Iterable<string>, visitor: Visitor): void {
	const state = new Map<string, "open" | "done">();
	for (const root of roots) {
		if (state.has(root)) {
			continue;
		}
		state.set(root, "open");
		const stack = [{ digest: root, inputs: visitor.inputsOf(root), next: 0 }];
		for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
			const input = top.inputs[top.next++];
			if (input === undefined) {
				visitor.leave(top.digest);
				state.set(top.digest, "done");
				stack.pop();
				continue;
			}
			const known = state.get(input.digest);
			if (known === "open") {
				throw invalid(`invalid input ${input.digest} that needs itself`);
			}
			if (known === undefined) {
				state.set(input.digest, "open");
				stack.push({ digest: input.digest, inputs: visitor.inputsOf(input.digest), next: 0 });
			}
		}
	}
}

/**
 * A name that contains names doubles with every level of a hostile graph; no name that people see is cut by this.
 */
const maxNameLength = 4096;

function nameOf(op: Op, loaded: ReadonlyMap<string, LoadedOp>): string {
	const inputName = (number: number | undefined) => {
		const input = number === undefined ? undefined : op.inputs[number];
		return input === undefined ? undefined : (loaded.get(input.digest)?.name ?? input.digest);
	};
	switch (op.kind) {
		case "source":
			return op.identifier;
		case "exec":
			return op.meta.args.join(" ");
		case "file":
			return op.actions.map(actionName).join(", ");
		case "build":
			return "build";
		case "merge": {
			const names = op.inputs.map((_, number) => inputName(number));
			return `merge (${names.join(", ")})`.slice(0, maxNameLength);
		}
		case "diff": {
			const side = (name: string | undefined) => (name === undefined ? "scratch" : `(${name})`);
			return `diff ${side(inputName(op.lower))} -> ${side(inputName(op.upper))}`.slice(0, maxNameLength);
		}
		case "passthrough":
			return `passthrough ${op.id}`;
	}
}

function actionName(action: Extract<Op, { kind: "file" }>["actions"][number]): string {
	switch (action.kind) {
		case "mkdir":
			return `mkdir ${action.path}`;
		case "mkfile":
			return `mkfile ${action.path}`;
		case "symlink":
			return `symlink ${action.newPath} -> ${action.oldPath}`;
		case "rm":
			return `rm ${action.path}`;
		case "copy":
			return `copy ${action.src} ${action.dest}`;
	}
}

function sourcesOf(digest: Digest, source: SourceMap | undefined): readonly LoadedSource[] {
	const sources: LoadedSource[] = [];
	for (const { file: index, ranges } of source?.locations.get(digest) ?? []) {
		const file = source?.files[index];
		if (file !== undefined) {
			sources.push({ file, ranges });
		}
	}
	return sources;
}
