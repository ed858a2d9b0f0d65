import { randomBytes } from "node:crypto";
import { posix } from "node:path";
import { SlipwayError } from "../../errors/errors.ts";
import { copy, mkfile, parseOwner } from "../../llb/file-steps.ts";
import { type GitRef, parseGitRef } from "../../llb/git-ref.ts";
import { joinPath } from "../../llb/go-path.ts";
import type { Constraints } from "../../llb/llb.ts";
import type { CopyOptions, CopyStep } from "../../llb/ops.ts";
import { http } from "../../llb/sources.ts";
import { merge, type State, scratch } from "../../llb/state.ts";
import { encodeText } from "../../oci/byte-text.ts";
import { type Digest, parseDigest } from "../../oci/digest.ts";
import { quoteGo } from "../../oci/go-quote.ts";
import { internalName, isHttpUrl } from "./build-context.ts";
import {
	commandDescription,
	displayCommand,
	environmentOf,
	type InstructionContext,
	locationOf,
	nextStepName,
	type StepName,
	stepName,
} from "./conversion.ts";
import { parseCopyMode } from "./copy-mode.ts";
import { addHistory } from "./image-draft.ts";
import type { AddInstruction, CopyInstruction } from "./instructions.ts";
import { copyIgnoredFile } from "./lint-rules.ts";
import type { StageState } from "./stage-state.ts";
import { isAbsolutePath, normalizePath, removeDriveLetter, toSlash } from "./target-path.ts";

/** What one COPY or ADD knows while its sources are converted. */
interface Transfer {
	readonly stage: StageState;
	readonly instruction: AddInstruction | CopyInstruction;
	readonly from: State;
	readonly destination: string;
	/** For sources of any kind. */
	readonly options: CopyOptions;
	readonly os: string;
	/** Of the whole instruction; ADD's downloads bear it too. */
	readonly name: string;
	readonly context: InstructionContext;
	/** Sources of the build context are looked up in its ignore file. */
	readonly checkIgnored: boolean;
	/** What ADD's own flags say; a git URL may say it as well, and then for all that follow. */
	readonly pinned: { checksum: string; keepGitDir: boolean | undefined };
}

/** COPY and ADD, with variables replaced. `from` is the build context, or where `--from` points to. */
export function convertTransfer(
	stage: StageState,
	instruction: AddInstruction | CopyInstruction,
	{
		from,
		isBuildContext,
		context,
	}: {
		readonly from: State;
		readonly isBuildContext: boolean;
		readonly context: InstructionContext;
	},
): void {
	const platform = stage.platform ?? context.platforms.target;
	const os = platform.os;
	const destination = resolveDestination(stage.state, instruction.destination, os);
	const { chown, chmod, exclude } = instruction;
	const options: CopyOptions = {
		...(chmod === "" ? {} : { mode: parseCopyMode(chmod) }),
		createDestPath: true,
		...(chown === "" ? {} : { owner: parseOwner(chown) }),
		...(exclude.length === 0 ? {} : { excludePatterns: exclude }),
	};
	checkChecksum(instruction);
	const env = environmentOf(stage);
	const step: StepName = {
		text: displayCommand(instruction.source, context.lexer, env),
		withPlatform: context.settings.multiPlatform,
		platform,
		env,
		trigger: context.trigger,
	};
	const name = nextStepName(stage, step);
	const transfer: Transfer = {
		stage,
		instruction,
		from,
		destination,
		options,
		os,
		name,
		context,
		checkIgnored: isBuildContext,
		pinned: {
			checksum: instruction.kind === "add" ? instruction.checksum : "",
			keepGitDir: instruction.kind === "add" ? instruction.keepGitDir : undefined,
		},
	};
	const steps = [
		...instruction.sources.map((source) => sourceStep(source, transfer)),
		...instruction.documents.map((document) => documentStep(document.name, document.content, transfer)),
	];
	const constraints: Constraints = {
		name,
		locations: locationOf(context.file, instruction.ranges),
		ignoreCache: stage.ignoreCache,
	};
	if (instruction.link && chmod === "") {
		const group = { id: randomBytes(16).toString("hex"), name };
		const copied = scratch().file(steps, {
			...constraints,
			...(stage.platform === undefined ? {} : { platform: stage.platform }),
			progressGroup: { ...group, weak: true },
		});
		const merged = merge([stage.state, copied], {
			...constraints,
			name: stepName(stage, { ...step, text: `LINK ${step.text}` }),
			progressGroup: { ...group, weak: false },
		});
		stage.state = stage.state.withOutput(merged.output);
	} else {
		stage.state = stage.state.file(steps, constraints);
	}
	addHistory(stage.image, { text: historyText(instruction), layer: true, epoch: context.epoch });
}

function historyText(instruction: AddInstruction | CopyInstruction): string {
	const { kind, chown, chmod, sources, documents, destination } = instruction;
	const words = [
		kind === "add" ? "ADD" : "COPY",
		...(kind === "copy" && instruction.parents ? ["--parents"] : []),
		...(chown === "" ? [] : [`--chown=${chown}`]),
		...(chmod === "" ? [] : [`--chmod=${chmod}`]),
		...sources,
		...documents.map((document) => `<<${document.name}`),
		destination,
		"# buildkit",
	];
	return words.join(" ");
}

function resolveDestination(state: State, destination: string, os: string): string {
	const path = removeDriveLetter(destination, os, true);
	if (isAbsolutePath(path, os)) {
		return normalizePath(path, { parent: "/", os, keepSlash: true });
	}
	// Both mean the working directory, not a file of its name.
	const relative = path === "." || path === "" ? "./" : path;
	return normalizePath(relative, { parent: state.dir, os, keepSlash: true });
}

function checkChecksum(instruction: AddInstruction | CopyInstruction): void {
	if (instruction.kind !== "add" || instruction.checksum === "") {
		return;
	}
	const [source = "", ...more] = instruction.sources;
	if (instruction.sources.length === 0 || more.length > 0) {
		throw invalid("checksum can't be specified for multiple sources");
	}
	if (!isHttpSource(source) && !isGitSource(source)) {
		throw invalid("checksum requires HTTP(S) or Git sources");
	}
}

function sourceStep(source: string, transfer: Transfer): CopyStep {
	const ref = parseGitRef(source);
	// `github.com/...` may be a directory.
	if (ref !== undefined && !ref.looksLocal) {
		return gitStep(ref, transfer);
	}
	return isHttpSource(source) ? httpStep(source, transfer) : fileStep(source, transfer);
}

function gitStep(
	ref: GitRef,
	{ instruction, name, destination, options, pinned, context }: Transfer,
): CopyStep {
	if (instruction.kind === "copy") {
		throw invalid("source can't be a git ref for COPY");
	}
	if (
		pinned.keepGitDir !== undefined &&
		ref.keepGitDir !== undefined &&
		pinned.keepGitDir !== ref.keepGitDir
	) {
		throw invalid("inconsistent keep-git-dir configuration");
	}
	pinned.keepGitDir = ref.keepGitDir ?? pinned.keepGitDir;
	if (pinned.checksum !== "" && ref.checksum !== "" && pinned.checksum !== ref.checksum) {
		throw invalid(`checksum mismatch ${quoteGo(pinned.checksum)} != ${quoteGo(ref.checksum)}`);
	}
	pinned.checksum = ref.checksum || pinned.checksum;
	const repository = context.hostKeys.git(ref.remote, {
		name,
		ref: ref.ref,
		keepGitDir: pinned.keepGitDir === true,
		checksum: pinned.checksum,
		subdir: ref.subdir,
		skipSubmodules: ref.submodules === false,
		fetchByCommit: ref.fetchByCommit,
	});
	return copy(repository, "/", destination, options);
}

function httpStep(url: string, { instruction, name, destination, options, pinned }: Transfer): CopyStep {
	if (instruction.kind === "copy") {
		throw invalid("source can't be a URL for COPY");
	}
	const filename = downloadName(url);
	const file = http(url, {
		filename,
		name,
		description: commandDescription(""),
		...(pinned.checksum === "" ? {} : { checksum: parseChecksum(pinned.checksum) }),
	});
	return copy(file, filename, destination, { ...options, attemptUnpack: instruction.unpack === true });
}

/** The last element of the URL's path. */
export function downloadName(url: string): string {
	const path = urlPath(url);
	const base = path === undefined ? "" : posix.basename(path);
	return base === "" || base === "." ? "__unnamed__" : base;
}

/** The decoded path as Go's `net/url` has it; undefined for what it refuses. */
function urlPath(url: string): string | undefined {
	const [, path = ""] = /^https?:\/\/[^/?#]*([^?#]*)/.exec(url) ?? [];
	try {
		return decodeURIComponent(path);
	} catch {
		return undefined;
	}
}

/** With the messages of Go's digest package. */
export function parseChecksum(text: string): Digest {
	const [, algorithm = "", hex = ""] = /^([a-z0-9]+(?:[.+_-][a-z0-9]+)*):([a-zA-Z0-9=_-]+)$/.exec(text) ?? [];
	if (algorithm === "") {
		throw invalid("invalid checksum digest format");
	}
	const length = { sha256: 64, sha384: 96, sha512: 128 }[algorithm];
	if (length === undefined) {
		throw invalid("unsupported digest algorithm");
	}
	if (hex.length !== length) {
		throw invalid("invalid checksum digest length");
	}
	if (!/^[a-f0-9]+$/.test(hex)) {
		throw invalid("invalid checksum digest format");
	}
	return parseDigest(text);
}

function fileStep(source: string, transfer: Transfer): CopyStep {
	const { instruction, from, destination, options, os } = transfer;
	lintIgnored(source, transfer);
	const normalize = (path: string): string => normalizePath(path, { parent: "/", os, keepSlash: false });
	let path = source;
	let parents: CopyOptions = {};
	if (instruction.kind === "copy" && instruction.parents) {
		// What stands before the pivot is not kept in the destination.
		const pivot = source.indexOf("/./");
		path = pivot < 0 ? "/" : source.slice(0, pivot);
		const pattern = normalize(pivot < 0 ? source : source.slice(pivot + 3));
		const exact = !hasWildcard(path) && !hasWildcard(pattern);
		parents = {
			includePatterns: [pattern.replace(/^\//, "")],
			...(exact ? { requiredPaths: [normalize(joinPath(path, pattern))] } : {}),
		};
	}
	const unpack = instruction.kind === "add" && (instruction.unpack ?? true);
	return copy(from, normalize(path), destination, {
		...options,
		...parents,
		followSymlinks: true,
		dirContentsOnly: true,
		attemptUnpack: unpack,
		allowWildcard: true,
		allowEmptyWildcard: true,
	});
}

function documentStep(name: string, content: string, { destination, options, os }: Transfer): CopyStep {
	const file = removeDriveLetter(name, os, false);
	const document = scratch().file(mkfile(file, 0o644, encodeText(content)), {
		name: internalName("preparing inline document"),
	});
	return copy(document, toSlash(file, os), destination, options);
}

/**
 * An ignore file with negated patterns is not checked: what lies in an excluded directory may be included again. The
 * root of the context counts as excluded only by patterns for all of it.
 */
function lintIgnored(source: string, { instruction, context, checkIgnored }: Transfer): void {
	const { ignored } = context;
	if (!checkIgnored || ignored === undefined || ignored.hasExclusions) {
		return;
	}
	const path = joinPath(source === "" ? "." : source);
	if (
		(path === "." || path === "/") &&
		!ignored.patterns.some(({ text }) => ["*", "**", "**/*"].includes(text))
	) {
		return;
	}
	if (ignored.matches(path)) {
		context.lint.report(
			copyIgnoredFile,
			instruction.ranges,
			instruction.kind === "add" ? "Add" : "Copy",
			path,
		);
	}
}

export function isHttpSource(source: string): boolean {
	return isHttpUrl(source) && !isGitSource(source);
}

/** A reference with a broken query is none here; whoever parses it gets the error. */
function isGitSource(source: string): boolean {
	try {
		return parseGitRef(source) !== undefined;
	} catch {
		return false;
	}
}

function hasWildcard(path: string): boolean {
	return /[*?[]/.test(path.replace(/\\./gs, ""));
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
