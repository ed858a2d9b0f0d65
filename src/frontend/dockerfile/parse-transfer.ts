import { parseFlags } from "./builder-flags.ts";
import { chompHeredoc, parseHeredocOrNone } from "./heredoc.ts";
import { common, invalid, wordsOf } from "./instruction-node.ts";
import type { AddInstruction, CopyInstruction, InlineDocument } from "./instructions.ts";
import type { InstructionNode } from "./parser.ts";

const transferFlags = { chown: "text", chmod: "text", link: "bool", exclude: "list" } as const;

export function parseAdd(node: InstructionNode): AddInstruction {
	requireDestination(node, "ADD");
	const flags = parseFlags(node.flags, {
		...transferFlags,
		"keep-git-dir": "bool",
		checksum: "text",
		unpack: "bool",
	});
	const { "keep-git-dir": keepGitDir, checksum = "", unpack } = flags;
	return {
		kind: "add",
		...common(node),
		...transfer(node, "ADD", flags),
		checksum,
		...(keepGitDir === undefined ? {} : { keepGitDir }),
		...(unpack === undefined ? {} : { unpack }),
	};
}

export function parseCopy(node: InstructionNode): CopyInstruction {
	requireDestination(node, "COPY");
	const flags = parseFlags(node.flags, { ...transferFlags, from: "text", parents: "bool" });
	const { from = "", parents = false } = flags;
	return { kind: "copy", ...common(node), ...transfer(node, "COPY", flags), from, parents };
}

function requireDestination(node: InstructionNode, name: string): void {
	if (wordsOf(node).length < 2) {
		throw invalid(
			`${name} requires at least two arguments, but only one was provided. Destination could not be determined`,
		);
	}
}

interface TransferFlags {
	readonly chown?: string;
	readonly chmod?: string;
	readonly link?: boolean;
	readonly exclude?: readonly string[];
}

function transfer(
	node: InstructionNode,
	name: string,
	{ chown = "", chmod = "", link = false, exclude = [] }: TransferFlags,
): Pick<CopyInstruction, "sources" | "documents" | "destination" | "chown" | "chmod" | "link" | "exclude"> {
	const words = wordsOf(node);
	const destination = words.at(-1) ?? "";
	if (parseHeredocOrNone(destination) !== undefined) {
		throw invalid(`${name} cannot accept a heredoc as a destination`);
	}
	const contents = new Map(node.heredocs.map((heredoc) => [heredoc.name, heredoc.content]));
	const sources: string[] = [];
	const documents: InlineDocument[] = [];
	for (const word of words.slice(0, -1)) {
		const heredoc = parseHeredocOrNone(word);
		if (heredoc === undefined) {
			sources.push(word);
			continue;
		}
		const content = contents.get(heredoc.name) ?? "";
		documents.push({
			name: heredoc.name,
			content: heredoc.chomp ? chompHeredoc(content) : content,
			expand: heredoc.expand,
		});
	}
	return { sources, documents, destination, chown, chmod, link, exclude };
}
