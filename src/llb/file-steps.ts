import type {
	BoundSteps,
	CopyOptions,
	CopyStep,
	FileBase,
	FileStep,
	MkdirStep,
	MkfileStep,
	OwnerSpec,
	RemoveStep,
	SymlinkStep,
	UserSpec,
} from "./ops.ts";
import type { State } from "./state.ts";

/**
 * Steps for `State.file`. Relative paths begin at the directory of the state that is changed, those of a copy's source
 * at the directory of the state that is copied from.
 */
export function mkdir(path: string, mode: number, options: MkdirStep["options"] = {}): MkdirStep {
	return { kind: "mkdir", path, mode, options };
}

export function mkfile(
	path: string,
	mode: number,
	data: Uint8Array | string,
	options: MkfileStep["options"] = {},
): MkfileStep {
	const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
	return { kind: "mkfile", path, mode, data: bytes, options };
}

export function rm(path: string, options: RemoveStep["options"] = {}): RemoveStep {
	return { kind: "rm", path, options };
}

/** A link at `newPath` that says `oldPath`; both are taken as they are. */
export function symlink(oldPath: string, newPath: string, options: SymlinkStep["options"] = {}): SymlinkStep {
	return { kind: "symlink", oldPath, newPath, options };
}

export function copy(
	from: State | BoundSteps,
	src: string,
	dest: string,
	options: CopyOptions = {},
): CopyStep {
	return { kind: "copy", from: "steps" in from ? from : fileBase(from), src, dest, options };
}

/** Steps whose result is copied from within the same op. */
export function bindSteps(state: State, steps: FileStep | readonly FileStep[]): BoundSteps {
	return { base: fileBase(state), steps: "kind" in steps ? [steps] : steps };
}

function fileBase(state: State): FileBase {
	return { dir: state.dir, ...(state.output === undefined ? {} : { output: state.output }) };
}

/** `user[:group]`, names or numbers; `root` is 0. */
export function parseOwner(text: string): OwnerSpec {
	const colon = text.indexOf(":");
	if (colon === -1) {
		return { user: parseUser(text) };
	}
	return { user: parseUser(text.slice(0, colon)), group: parseUser(text.slice(colon + 1)) };
}

const maxInt32 = 2 ** 31;

function parseUser(text: string): UserSpec {
	if (text === "root" || text === "") {
		return { kind: "id", id: 0 };
	}
	const id = /^[+-]?[0-9]+$/.test(text) ? Number(text) : Number.NaN;
	// The wire has 32 bits without a sign: -1 is the highest id.
	return id >= -maxInt32 && id < maxInt32 ? { kind: "id", id: id >>> 0 } : { kind: "name", name: text };
}
