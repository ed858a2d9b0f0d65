import type { Limit } from "../async/limit.ts";
import type { Scope } from "../async/scope.ts";
import { SharedQuestion } from "../async/shared-question.ts";
import { SlipwayError } from "../errors/errors.ts";
import { alternativesOf, flightIds, type Key, newFreshTag } from "./key.ts";
import type { KeyReader, ResultHandling } from "./solver.ts";
import type { VertexState } from "./vertex-state.ts";

/**
 * One run of an op, shared by all vertices whose keys are equal. It is attempted once: what fails or is aborted leaves the
 * index of executions, and who still wants the outputs makes a new one.
 */
export class Execution<R> {
	/** The vertex whose op runs. */
	readonly owner: VertexState<R>;
	/** Keys of results of forced runs are told apart by it. */
	readonly tag: string = newFreshTag();
	readonly #options: ExecutionOptions<R>;
	readonly #question: SharedQuestion<readonly R[]>;
	readonly #users = new Set<VertexState<R>>();
	#attempted = false;
	#spent = false;

	constructor(options: ExecutionOptions<R>) {
		this.owner = options.owner;
		this.#options = options;
		this.#question = new SharedQuestion((scope) => this.#attempt(scope), {
			discard: (outputs) => releaseAll(outputs, options.handling),
		});
	}

	/** The outputs stay the execution's. Rejects if it is spent. */
	outputs(scope: Scope): Promise<readonly R[]> {
		return this.#question.ask(scope);
	}

	/** It was aborted and has ended. */
	get spent(): boolean {
		return this.#spent;
	}

	get failed(): boolean {
		return this.#question.failed;
	}

	use(vertex: VertexState<R>): void {
		this.#users.add(vertex);
	}

	/** The last user's leaving ends it. */
	async leave(vertex: VertexState<R>): Promise<void> {
		if (this.#users.delete(vertex) && this.#users.size === 0) {
			this.#options.onEnd(this);
			await this.#question[Symbol.asyncDispose]();
			if (!this.#attempted) {
				this.#attempted = true;
				await releaseAll(this.#options.inputs, this.#options.handling);
			}
		}
	}

	async #attempt(scope: Scope): Promise<readonly R[]> {
		const { owner, inputs, handling, limit, onEnd } = this.#options;
		if (this.#attempted) {
			throw new SlipwayError("aborted", `the execution of ${owner.vertex.name} was cancelled`);
		}
		this.#attempted = true;
		try {
			const outputs = await execute(owner, inputs, limit, scope);
			owner.executed = true;
			return outputs;
		} catch (error) {
			onEnd(this);
			throw error;
		} finally {
			if (scope.aborted) {
				this.#spent = true;
				onEnd(this);
			}
			await releaseAll(inputs, handling);
		}
	}
}

export interface ExecutionOptions<R> {
	readonly owner: VertexState<R>;
	/** The execution takes them over and releases them. */
	readonly inputs: readonly R[];
	readonly handling: ResultHandling<R>;
	readonly limit: Limit;
	/** It failed, was aborted, or nobody uses it any more: nobody may join it. */
	readonly onEnd: (execution: Execution<R>) => void;
}

async function execute<R>(
	vertex: VertexState<R>,
	inputs: readonly R[],
	limit: Limit,
	scope: Scope,
): Promise<readonly R[]> {
	const op = vertex.op();
	using _place = op.unlimited === true ? undefined : await limit.acquire({ signal: scope.signal });
	const release = await vertex.guard(scope, "", async () => op.acquire?.(scope.signal));
	try {
		scope.throwIfAborted();
		return await vertex.run(scope, "", (context) => op.execute(inputs, context));
	} finally {
		release?.();
	}
}

async function releaseAll<R>(results: readonly R[], handling: ResultHandling<R>): Promise<void> {
	await Promise.all(results.map((result) => handling.release(result)));
}

/**
 * Executions by key, from their start until no vertex uses them. Two are equal if their ops' digests are, and each
 * input has an alternative in common.
 */
export class ExecutionIndex<R> {
	readonly #byLink = new Map<string, Set<Execution<R>>>();
	readonly #links = new Map<Execution<R>, readonly string[]>();
	readonly #store: KeyReader;

	constructor(store: KeyReader) {
		this.#store = store;
	}

	/** What a vertex that ignores the cache may join is only what ignores it too. */
	find(keys: readonly Key[], ignoreCache: boolean): Execution<R> | undefined {
		for (const key of keys) {
			for (const execution of this.#matches(linksOf(key, this.#store))) {
				if (!ignoreCache || execution.owner.ignoreCache) {
					return execution;
				}
			}
		}
		return undefined;
	}

	add(execution: Execution<R>, keys: readonly Key[]): void {
		const links = keys.flatMap((key) => linksOf(key, this.#store).flat());
		this.#links.set(execution, links);
		for (const link of links) {
			const executions = this.#byLink.get(link);
			if (executions === undefined) {
				this.#byLink.set(link, new Set([execution]));
			} else {
				executions.add(execution);
			}
		}
	}

	remove(execution: Execution<R>): void {
		for (const link of this.#links.get(execution) ?? []) {
			const executions = this.#byLink.get(link);
			executions?.delete(execution);
			if (executions?.size === 0) {
				this.#byLink.delete(link);
			}
		}
		this.#links.delete(execution);
	}

	#matches(inputs: readonly (readonly string[])[]): Set<Execution<R>> {
		let common: Set<Execution<R>> | undefined;
		for (const links of inputs) {
			const here = new Set<Execution<R>>();
			for (const link of links) {
				for (const execution of this.#byLink.get(link) ?? []) {
					if (common === undefined || common.has(execution)) {
						here.add(execution);
					}
				}
			}
			common = here;
			if (here.size === 0) {
				break;
			}
		}
		return common ?? new Set();
	}
}

/** For each input its alternatives as text; an op without inputs has one that is its digest. */
function linksOf(key: Key, store: KeyReader): readonly (readonly string[])[] {
	if (key.alternatives.length === 0) {
		return [[key.digest]];
	}
	return key.alternatives.map((input, index) =>
		[...alternativesOf(input)].flatMap(({ key: from, selector }) =>
			flightIds(from, store).map((id) => `${key.digest} ${index} ${id} ${selector ?? ""}`),
		),
	);
}
