import { createHash } from "node:crypto";
import { Definition, type FileAction, Op } from "../api/generated/ops.ts";
import { SlipwayError } from "../errors/errors.ts";

/** A definition's ops, one JSON document a line (as `encoding/json` writes BuildKit's structs), or as a graph for `dot`. */
export function dumpDefinition(bytes: Uint8Array, { dot }: { readonly dot: boolean }): string {
	const definition = decode(() => Definition.decode(bytes), "failed to parse input: not an LLB definition");
	const ops = definition.def.map((encoded) => ({
		op: decode(() => Op.decode(encoded), "failed to parse op"),
		digest: `sha256:${createHash("sha256").update(encoded).digest("hex")}`,
	}));
	if (dot) {
		return graph(ops);
	}
	return ops
		.map(({ op, digest }) =>
			JSON.stringify({
				Op: messageJson(op),
				Digest: digest,
				OpMetadata: messageJson(definition.metadata.get(digest) ?? {}),
			}).replace(/[<>&]/g, (char) => `\\u00${char.charCodeAt(0).toString(16)}`),
		)
		.map((line) => `${line}\n`)
		.join("");
}

function decode<T>(read: () => T, message: string): T {
	try {
		return read();
	} catch (cause) {
		throw new SlipwayError("invalid-argument", message, { cause });
	}
}

/** Empty fields are left out, bytes are base64, the member of a oneof stands below the oneof's name. */
function messageJson(value: unknown): unknown {
	if (value instanceof Uint8Array) {
		return Buffer.from(value).toString("base64");
	}
	if (value instanceof Map) {
		const entries = [...value].sort(([a], [b]) => (String(a) < String(b) ? -1 : 1));
		return Object.fromEntries(entries.map(([key, each]) => [key, messageJson(each)]));
	}
	if (Array.isArray(value)) {
		return value.map(messageJson);
	}
	if (typeof value !== "object" || value === null) {
		return value;
	}
	const fields = Object.entries(value).filter(([name, each]) => !name.startsWith("_") && !isEmpty(each));
	return Object.fromEntries(
		fields.map(([name, each]) => [
			name === "op" ? "Op" : name,
			isOneof(each) ? member(each) : messageJson(each),
		]),
	);
}

interface Oneof {
	readonly $case: string;
	readonly value: unknown;
}

function isOneof(value: unknown): value is Oneof {
	return typeof value === "object" && value !== null && "$case" in value;
}

function member({ $case, value }: Oneof): unknown {
	return { [$case]: messageJson(value) };
}

function isEmpty(value: unknown): boolean {
	return (
		value === undefined ||
		value === "" ||
		value === 0 ||
		value === false ||
		value === "0" ||
		(Array.isArray(value) && value.length === 0) ||
		(value instanceof Uint8Array && value.length === 0) ||
		(value instanceof Map && value.size === 0)
	);
}

function graph(ops: readonly { readonly op: Op; readonly digest: string }[]): string {
	const lines = ["digraph {"];
	for (const { op, digest } of ops) {
		const { label, shape } = nodeOf(op, digest);
		lines.push(`  ${JSON.stringify(digest)} [label=${JSON.stringify(label)} shape="${shape}"];`);
	}
	for (const { op, digest } of ops) {
		for (const [index, input] of op.inputs.entries()) {
			const mounts = op.op?.$case === "exec" ? op.op.value.mounts : [];
			const label = mounts.filter((mount) => mount.input === index && mount.dest !== "/").at(-1)?.dest ?? "";
			lines.push(
				`  ${JSON.stringify(input.digest)} -> ${JSON.stringify(digest)} [label=${JSON.stringify(label)}];`,
			);
		}
	}
	return `${lines.join("\n")}\n}\n`;
}

function nodeOf({ op }: Op, digest: string): { readonly label: string; readonly shape: string } {
	switch (op?.$case) {
		case "source":
			return { label: op.value.identifier, shape: "ellipse" };
		case "exec":
			return { label: op.value.meta?.args.join(" ") ?? "", shape: "box" };
		case "build":
			return { label: "build", shape: "box3d" };
		case "merge":
			return { label: "merge", shape: "invtriangle" };
		case "diff":
			return { label: "diff", shape: "doublecircle" };
		case "file":
			return { label: op.value.actions.map(actionLabel).join(","), shape: "note" };
		default:
			return { label: digest, shape: "plaintext" };
	}
}

function actionLabel({ action }: FileAction): string {
	switch (action?.$case) {
		case "copy":
			return `copy{src=${action.value.src}, dest=${action.value.dest}}`;
		case "mkfile":
			return `mkfile{path=${action.value.path}}`;
		case "mkdir":
			return `mkdir{path=${action.value.path}}`;
		case "rm":
			return `rm{path=${action.value.path}}`;
		case "symlink":
			return `symlink{oldpath=${action.value.oldpath}, newpath=${action.value.newpath}}`;
		default:
			return "";
	}
}
