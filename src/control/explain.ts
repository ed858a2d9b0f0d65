import type { FrontendResult } from "../frontend/frontend.ts";
import type { ProgressSink } from "../progress/progress.ts";
import type { Session } from "../session/session.ts";
import type { CacheKey } from "../solver/solver.ts";
import type { BuildRequest } from "./control.ts";

/**
 * Why steps ran: what the graph and the files of a build have that those of the last build of the same project had not. The last
 * build is kept for each project, which is a client's context with a Dockerfile, target and platforms; one that gave the same as
 * the one before costs a look into the database.
 */
export interface Explainer {
	open(request: BuildRequest, options: ExplainOptions): ExplainedBuild;
}

export interface ExplainOptions {
	readonly session: Session;
	readonly progress: ProgressSink;
	/** Called once, at the end of the build, also of one that failed. */
	readonly report: ((explanation: Explanation) => void) | undefined;
	readonly signal: AbortSignal;
}

/** One build as it is watched. Disposing it reports, and keeps what a build that has come to its end was made of. */
export interface ExplainedBuild extends AsyncDisposable {
	/** In place of the build's own, which gets everything. */
	readonly progress: ProgressSink;
	/** What is going to be built. */
	planned(result: FrontendResult): void;
	/** All of it was built; the keys of its trees. */
	built(keys: Iterable<readonly CacheKey[]>): void;
}

export interface Explanation {
	/** Steps that ran, in the order of the graph. */
	readonly steps: readonly ExplainedStep[];
	/** How many were taken from the cache. */
	readonly cached: number;
}

export interface ExplainedStep {
	readonly name: string;
	readonly place?: { readonly file: string; readonly line: number };
	/** At least one. */
	readonly reasons: readonly Reason[];
}

export type Reason =
	/** There was no build of this project, or none that is remembered. */
	| { readonly kind: "first-build" }
	/** Nothing like it was in the last build. */
	| { readonly kind: "new-step" }
	| { readonly kind: "instruction"; readonly before: string; readonly after: string }
	/** A build argument or a variable; undefined is one that is not there. */
	| {
			readonly kind: "argument";
			readonly name: string;
			readonly before: string | undefined;
			readonly after: string | undefined;
	  }
	/** What else an instruction is made of: working directory, user, shell, mounts, platform. */
	| {
			readonly kind: "option";
			readonly name: string;
			readonly before: string | undefined;
			readonly after: string | undefined;
	  }
	| { readonly kind: "base"; readonly image: string; readonly before: string; readonly after: string }
	| {
			readonly kind: "files";
			/** The context, stage or URL that they come from. */
			readonly from: string;
			/** Empty where it is not known which: of mounted stages, of very large directories. */
			readonly files: readonly FileChange[];
			/** More than are listed, if there are very many. */
			readonly total: number;
	  }
	/** The step that it builds on ran. */
	| { readonly kind: "step"; readonly name: string }
	/** It builds on another step than before. */
	| { readonly kind: "order"; readonly before: string; readonly after: string }
	| { readonly kind: "no-cache" }
	/** Nothing has changed, but the result was pruned or damaged. */
	| { readonly kind: "gone" }
	/** Nothing has changed that is known of: a secret file, a mount's content, a source that the cache does not follow. */
	| { readonly kind: "unknown" };

export interface FileChange {
	readonly path: string;
	readonly change: "added" | "changed" | "removed";
}
