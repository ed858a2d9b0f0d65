import type { SourceRange } from "../../errors/errors.ts";
import type { ArgDeclaration } from "./instructions.ts";

/** What a stage can be given from outside: gathered while it is converted, for those who ask for an outline. */
export interface StageOutline {
	readonly args: Map<string, OutlineArg>;
	readonly usedArgs: Set<string>;
	readonly secrets: Map<string, OutlineAccess>;
	readonly ssh: Map<string, OutlineAccess>;
}

export interface OutlineArg {
	readonly declaration: ArgDeclaration;
	/** Empty if it has none. */
	readonly value: string;
	/** ARGs that its default is made from. */
	readonly uses: ReadonlySet<string>;
	readonly ranges: readonly SourceRange[];
}

export interface OutlineAccess {
	readonly required: boolean;
	readonly ranges: readonly SourceRange[];
}

export function newOutline(args: ReadonlyMap<string, OutlineArg> = new Map()): StageOutline {
	return { args: new Map(args), usedArgs: new Set(), secrets: new Map(), ssh: new Map() };
}

export function copyOutline(outline: StageOutline): StageOutline {
	return {
		args: new Map(outline.args),
		usedArgs: new Set(outline.usedArgs),
		secrets: new Map(outline.secrets),
		ssh: new Map(outline.ssh),
	};
}
