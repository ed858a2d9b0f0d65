import type { CapabilitySet } from "./capabilities.ts";
import type { Constraints, Definition, Output } from "./llb.ts";

export interface MarshalOptions {
	/** For ops that have none of their own; the platform's default is this machine's. */
	readonly constraints?: Constraints;
	/** What the server can; absent: everything that needs no fallback. */
	readonly caps?: CapabilitySet;
	/** Tells apart local directories of one name in two builds; default: random. */
	readonly localUniqueId?: string;
}

/** The definition of an output; undefined is scratch, whose definition is empty. */
export declare function marshal(output: Output | undefined, options?: MarshalOptions): Definition;
