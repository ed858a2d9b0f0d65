import type { SourceRange } from "../../errors/errors.ts";
import { SlipwayError } from "../../errors/errors.ts";
import { State, scratch } from "../../llb/state.ts";
import type { Platform } from "../../oci/platform.ts";
import { toLower } from "./go-text.ts";
import { blankImage, type ImageDraft } from "./image-draft.ts";
import type { ArgDeclaration, Instruction, Stage } from "./instructions.ts";
import type { NamedContext } from "./named-context.ts";
import { copyOutline, type StageOutline } from "./outline-capture.ts";

/**
 * A stage while it is converted: what `FROM` has given it, then what each instruction made of it. Images that `--from`
 * names without a FROM are stages too, without a name and not registered by the Dockerfile.
 *
 * Changed in place by the converter only. Life: made from the instruction; its base found (another stage, an image, a
 * context); `inherit` once the base is final; its instructions converted, after which `converted` is true.
 */
export interface StageState {
	readonly stage: Stage;
	/** The base as the search left it: a stage's name, or a full image reference. */
	baseName: string;
	/** Shown in progress; empty if it is the only one. */
	displayName: string;
	/** Another stage; absent for an image, a context or scratch. */
	base: StageState | undefined;
	namedContext: NamedContext | undefined;
	/** Stages that instructions use, with the first place that does. */
	readonly uses: Map<StageState, readonly SourceRange[]>;
	commands: StageCommand[];
	readonly registered: boolean;

	state: State;
	/** What the state's environment is to be, if it is to change; see `setVariable`. */
	variables: Map<string, string> | undefined;
	image: ImageDraft;
	/** As it was before this Dockerfile changed it; absent for scratch. */
	baseImage: ImageDraft | undefined;
	platform: Platform | undefined;
	converted: boolean;
	/** The base image was asked for. */
	resolved: boolean;
	triggersRead: boolean;
	ignoreCache: boolean;

	/** ARGs in the order of their declaration, those of the base last, with the values that they have. */
	args: ArgDeclaration[];
	/** Paths of the build context that it uses. */
	readonly contextPaths: Set<string>;
	/** Paths of this file system that others use; shared with the base, whose files they may be. */
	usedPaths: Set<string>;
	/** A WORKDIR of this Dockerfile was seen. */
	workdirSet: boolean;
	/** The last CMD, ENTRYPOINT and HEALTHCHECK of the stage itself. */
	readonly seen: Map<"cmd" | "entrypoint" | "healthcheck", readonly SourceRange[]>;

	/** Steps that are counted in `[name 2/7]`. */
	stepTotal: number;
	stepIndex: number;
	outline: StageOutline;
	scanStage: boolean;
	scanContext: boolean;
}

export interface StageCommand {
	readonly instruction: Instruction;
	/** Where COPY copies from; one for each mount of RUN. */
	readonly sources: readonly StageState[];
	/** Came with the base. */
	readonly trigger: boolean;
}

export interface NewStage {
	readonly stage: Stage;
	readonly registered: boolean;
	readonly outline: StageOutline;
}

export function newStage({ stage, registered, outline }: NewStage): StageState {
	return {
		stage,
		baseName: stage.baseName,
		displayName: stage.name,
		base: undefined,
		namedContext: undefined,
		uses: new Map(),
		commands: [],
		registered,
		state: scratch(),
		variables: undefined,
		image: blankImage(),
		baseImage: undefined,
		platform: undefined,
		converted: false,
		resolved: false,
		triggersRead: false,
		ignoreCache: false,
		args: [],
		contextPaths: new Set(),
		usedPaths: new Set(),
		workdirSet: false,
		seen: new Map(),
		stepTotal: 0,
		stepIndex: 0,
		outline,
		scanStage: false,
		scanContext: false,
	};
}

/** All stages in order, and by name: of equal names the last so far. */
export class StageTable {
	readonly states: StageState[] = [];
	readonly #byName = new Map<string, StageState>();

	/** FROM looks names up as they are written, and they are in lower case here. */
	add(state: StageState): void {
		this.states.push(state);
		const base = this.#byName.get(state.baseName);
		if (base !== undefined) {
			state.base = base;
			state.outline = copyOutline(base.outline);
		}
		if (state.stage.name !== "") {
			this.#byName.set(toLower(state.stage.name), state);
		}
	}

	find(name: string): StageState | undefined {
		return this.#byName.get(toLower(name));
	}

	/** Throws `invalid-argument` for a number that no stage has. */
	at(index: number): StageState {
		const state = index < 0 ? undefined : this.states[index];
		if (state === undefined) {
			throw new SlipwayError("invalid-argument", `invalid stage index ${index}`);
		}
		return state;
	}

	/** For suggestions. */
	names(): readonly string[] {
		return this.states.map((state) => state.displayName).filter((name) => name !== "");
	}
}

/**
 * Sets a variable of the stage, not yet of its state: that is immutable, and a copy of it for each of thousands of ENVs
 * would take time without bound. A key that was set before moves to the end.
 */
export function setVariable(stage: StageState, key: string, value: string): void {
	stage.variables ??= new Map(stage.state.env);
	stage.variables.delete(key);
	stage.variables.set(key, value);
}

/** Brings the variables into the state; to be called before anything runs on it or inherits from it. */
export function applyVariables(stage: StageState): void {
	const { state, variables } = stage;
	if (variables !== undefined) {
		stage.state = new State(state.output, { ...state, env: variables });
		stage.variables = undefined;
	}
}

/** The stages that are needed for this one, itself included. */
export function reachableFrom(target: StageState): ReadonlySet<StageState> {
	const found = new Set<StageState>();
	const open = [target];
	for (let state = open.pop(); state !== undefined; state = open.pop()) {
		if (found.has(state)) {
			continue;
		}
		found.add(state);
		if (state.base !== undefined) {
			open.push(state.base);
		}
		open.push(...state.uses.keys());
	}
	return found;
}
