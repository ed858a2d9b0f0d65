import { createHash } from "node:crypto";
import type { CacheManager, ImmutableRef, RefId } from "../cache/cache.ts";
import type { Database } from "../database/database.ts";
import { toError } from "../errors/errors.ts";
import type { FrontendResult } from "../frontend/frontend.ts";
import type { Definition } from "../llb/llb.ts";
import { cleanPath } from "../patterns/clean-path.ts";
import type { ProgressSink } from "../progress/progress.ts";
import type { SnapshotId } from "../snapshot/snapshot.ts";
import type { CacheKey } from "../solver/solver.ts";
import { localIndex } from "../source/local.ts";
import type { BuildRequest } from "./control.ts";
import type {
	ExplainedBuild,
	ExplainedStep,
	Explainer,
	ExplainOptions,
	Explanation,
	Reason,
} from "./explain.ts";
import { differences, listingDifferences, listingOf, sourcePath } from "./explain-files.ts";
import { type Pair, pairSteps } from "./explain-pairs.ts";
import { type PresentStep, type StepNote, stepsOf, variablePrefix } from "./explain-steps.ts";

export interface ExplainerServices {
	readonly database: Database;
	readonly cache: Pick<CacheManager, "get" | "has" | "search" | "snapshotOf">;
	/** Where the files of one layer are. */
	readonly layerDirectory: (id: SnapshotId) => string;
	readonly warn: (message: string) => void;
}

/** The last build of each project is kept, of this many projects. */
const maxProjects = 500;

export function createExplainer(services: ExplainerServices): Explainer {
	services.database.define(
		`CREATE TABLE IF NOT EXISTS explain_project (project TEXT PRIMARY KEY, built_at REAL NOT NULL, state TEXT NOT NULL, steps TEXT NOT NULL) WITHOUT ROWID`,
	);
	return { open: (request, options) => new Watch(services, request, options) };
}

function projectOf({ frontend, frontendOptions }: BuildRequest, { session }: ExplainOptions): string {
	const named = ["context", "contextsubdir", "filename", "target", "platform"].map(
		(name) => frontendOptions[name] ?? "",
	);
	return createHash("sha256")
		.update(JSON.stringify([frontend ?? "", session.sharedKey, ...named]))
		.digest("hex");
}

class Watch implements ExplainedBuild {
	readonly progress: ProgressSink;
	readonly #services: ExplainerServices;
	readonly #request: BuildRequest;
	readonly #project: string;
	readonly #options: ExplainOptions;
	readonly #ran = new Set<string>();
	readonly #cached = new Set<string>();
	readonly #results = new Map<string, string>();
	#definitions: readonly Definition[] = [];
	#keys: readonly CacheKey[] | undefined;

	constructor(services: ExplainerServices, request: BuildRequest, options: ExplainOptions) {
		this.#services = services;
		this.#request = request;
		this.#project = projectOf(request, options);
		this.#options = options;
		const { progress } = options;
		this.progress = {
			write: (event) => {
				if (event.kind === "vertex" && event.vertex.completed !== undefined) {
					const { cached, digest } = event.vertex;
					(cached ? this.#cached : this.#ran).add(digest);
				}
				progress.write(event);
			},
		};
	}

	planned({ ref, refs }: FrontendResult): void {
		this.#definitions = [ref, ...refs.values()].flatMap((each) =>
			each === undefined ? [] : [each.definition],
		);
	}

	built(keys: Iterable<readonly CacheKey[]>): void {
		this.#keys = [...keys].flat();
	}

	/** An explanation is no reason to fail. */
	async [Symbol.asyncDispose](): Promise<void> {
		try {
			await this.#end();
		} catch (thrown) {
			this.#services.warn(`why steps ran is not known: ${toError(thrown).message}`);
		}
	}

	async #end(): Promise<void> {
		const { report } = this.#options;
		const isBuilt = this.#keys !== undefined && this.#definitions.length > 0;
		const state = this.#state();
		const isKept = isBuilt && state !== this.#column("state");
		if (report === undefined && !isKept) {
			return;
		}
		const steps = stepsOf(this.#definitions);
		this.#findResults();
		report?.(await this.#explain(steps, this.#lastBuild()));
		if (isKept) {
			this.#keep(steps, state);
		}
	}

	/** The same as long as the same texts with the same options give the same trees: then there is nothing to keep. */
	#state(): string {
		const { frontendOptions } = this.#request;
		const texts = this.#definitions.flatMap(({ source }) => (source?.files ?? []).map(({ data }) => data));
		const hash = createHash("sha256").update(
			JSON.stringify([
				Object.entries(frontendOptions).toSorted(([a], [b]) => (a < b ? -1 : 1)),
				(this.#keys ?? []).map((key) => key.records()[0]?.record.id ?? ""),
				texts.map(({ length }) => length),
			]),
		);
		for (const text of texts) {
			hash.update(text);
		}
		return hash.digest("hex");
	}

	/** Which record each vertex was kept as. */
	#findResults(): void {
		const seen = new Set<CacheKey>();
		const pending = [...(this.#keys ?? [])];
		for (let key = pending.pop(); key !== undefined; key = pending.pop()) {
			if (seen.has(key)) {
				continue;
			}
			seen.add(key);
			if (key.vertex !== undefined && !this.#results.has(key.vertex)) {
				const id = key.records()[0]?.record.id;
				if (id !== undefined) {
					this.#results.set(key.vertex, id);
				}
			}
			pending.push(...key.inputs.flatMap((input) => input.map((each) => each.key)));
		}
	}

	/** Of the last build. */
	#column(name: "state" | "steps"): string | undefined {
		const row = this.#services.database.get(
			`SELECT ${name} FROM explain_project WHERE project = ?`,
			this.#project,
		);
		return row === undefined ? undefined : String(row[name]);
	}

	#lastBuild(): readonly StepNote[] | undefined {
		const steps = this.#column("steps");
		return steps === undefined ? undefined : (JSON.parse(steps) as readonly StepNote[]);
	}

	#keep(steps: readonly PresentStep[], state: string): void {
		const { database } = this.#services;
		const mounted = new Set(steps.filter(({ kind }) => kind === "exec").flatMap(mountedInputs));
		const notes = steps.map((step, index): StepNote => {
			const { digest, ignoreCache: _, op: __, ...note } = step;
			const result = this.#results.get(digest);
			const listing = mounted.has(index) ? this.#listing(step) : undefined;
			return {
				...note,
				...(result === undefined ? {} : { result }),
				...(listing === undefined ? {} : { listing }),
			};
		});
		database.transaction(() => {
			database.run(
				"INSERT OR REPLACE INTO explain_project (project, built_at, state, steps) VALUES (?, ?, ?, ?)",
				this.#project,
				Date.now(),
				state,
				JSON.stringify(notes),
			);
			database.run(
				"DELETE FROM explain_project WHERE project IN (SELECT project FROM explain_project ORDER BY built_at DESC LIMIT -1 OFFSET ?)",
				maxProjects,
			);
		});
	}

	async #explain(
		steps: readonly PresentStep[],
		before: readonly StepNote[] | undefined,
	): Promise<Explanation> {
		const pairs = before === undefined ? new Map<number, Pair<StepNote>>() : pairSteps(before, steps);
		const explained: ExplainedStep[] = [];
		let cached = 0;
		for (const [index, step] of steps.entries()) {
			if ((step.kind !== "exec" && step.kind !== "file" && step.kind !== "build") || isInternal(step)) {
				continue;
			}
			if (!this.#ran.has(step.digest)) {
				cached += this.#cached.has(step.digest) ? 1 : 0;
				continue;
			}
			const reasons: Reason[] =
				before === undefined
					? [{ kind: "first-build" }]
					: await this.#reasons(step, { pair: pairs.get(index), steps, before, pairs });
			explained.push({
				name: step.name,
				...(step.place === undefined ? {} : { place: step.place }),
				reasons: step.ignoreCache ? [{ kind: "no-cache" }] : reasons,
			});
		}
		return { steps: explained, cached };
	}

	async #reasons(step: PresentStep, known: Known): Promise<Reason[]> {
		const { pair } = known;
		if (pair === undefined) {
			return [{ kind: "new-step" }];
		}
		const old = pair.before;
		const reasons: Reason[] = pair.sameText
			? fieldReasons(old, step)
			: [
					{ kind: "instruction", before: old.command || old.name, after: step.command || step.name },
					...fieldReasons(old, step).filter(({ kind }) => kind === "argument"),
				];
		for (const [at, input] of step.inputs.entries()) {
			reasons.push(...this.#inputReasons(input, old.inputs[at], known));
		}
		if (step.op.kind === "file" && pair.sameText) {
			const files = await this.#fileReason(step, old, known.steps);
			if (files !== undefined) {
				reasons.push(files);
			}
		}
		if (reasons.length > 0) {
			return reasons;
		}
		if (old.result !== undefined && !this.#services.cache.has(old.result as RefId)) {
			return [{ kind: "gone" }];
		}
		const mounts = step.kind === "exec" ? this.#mountReasons(step, old, known) : [];
		return mounts.length === 0 ? [{ kind: "unknown" }] : mounts;
	}

	#inputReasons(
		input: StepNote["inputs"][number],
		oldInput: StepNote["inputs"][number] | undefined,
		{ steps, before, pairs }: Known,
	): Reason[] {
		const now = leavesOf(input.step, steps);
		const old = oldInput === undefined ? [] : leavesOf(oldInput.step, before);
		const bases = now.flatMap((index, at): Reason[] => {
			const [step, oldStep] = [steps[index], before[old[at] ?? -1]];
			const reason =
				step?.kind === "source" && oldStep?.kind === "source" ? baseReason(oldStep, step) : undefined;
			return reason === undefined ? [] : [reason];
		});
		if (input.role !== "base") {
			return bases;
		}
		const ran = now.flatMap((index): Reason[] => {
			const step = steps[index];
			return step !== undefined && step.kind !== "source" && this.#ran.has(step.digest)
				? [{ kind: "step", name: step.name }]
				: [];
		});
		if (bases.length + ran.length > 0) {
			return [...bases, ...ran.slice(-1)];
		}
		const [top, oldTop] = [steps[input.step], before[oldInput?.step ?? -1]];
		return top !== undefined &&
			oldTop !== undefined &&
			top.kind !== "source" &&
			pairs.get(input.step)?.before !== oldTop
			? [{ kind: "order", before: oldTop.name, after: top.name }]
			: [];
	}

	/** Which files of mounted directories changed; of those that it can't be said of, that some may have. */
	#mountReasons({ op, inputs }: PresentStep, old: StepNote, { steps, before }: Known): Reason[] {
		const found = inputs.flatMap(({ role, step: index }, input): readonly FilesReason[] => {
			if (role !== "files") {
				return [];
			}
			const step = steps[index];
			const reason = { kind: "files", from: originOf(step) } as const;
			const listing = step === undefined ? undefined : this.#listing(step);
			const oldListing = before[old.inputs[input]?.step ?? -1]?.listing;
			if (listing === undefined || oldListing === undefined || op.kind !== "exec") {
				return [{ ...reason, files: [], total: 0 }];
			}
			const selectors = op.mounts.flatMap((mount) => (mount.input === input ? [mount.selector] : []));
			return selectors.map((selector) => ({
				...reason,
				...listingDifferences(oldListing, listing, cleanPath(`/${selector}`)),
			}));
		});
		const certain = found.filter(({ total }) => total > 0);
		return certain.length > 0 ? certain : found.slice(0, 1).map((each) => ({ ...each, files: [], total: 0 }));
	}

	/** Of a client's directory as it was sent. */
	#listing({ op }: PresentStep): StepNote["listing"] {
		const name = op.kind === "source" ? /^local:\/\/(.*)$/s.exec(op.identifier)?.[1] : undefined;
		if (op.kind !== "source" || name === undefined) {
			return undefined;
		}
		const { cache, layerDirectory } = this.#services;
		const sharedKeyHint = op.attrs.get("local.sharedkeyhint") ?? "";
		const { sharedKey } = this.#options.session;
		const [id] = cache.search(localIndex({ name, sharedKeyHint, sharedKey }));
		const snapshot = id === undefined ? undefined : cache.snapshotOf(id);
		return snapshot === undefined ? undefined : listingOf(layerDirectory(snapshot));
	}

	/** What of the files is other than what the step made last time. */
	async #fileReason(
		step: PresentStep,
		old: StepNote,
		steps: readonly PresentStep[],
	): Promise<Reason | undefined> {
		const { op } = step;
		const id = this.#results.get(step.digest);
		const from = step.inputs.find(({ role }) => role === "files") ?? step.inputs[0];
		if (op.kind !== "file" || old.result === undefined || id === undefined || from === undefined) {
			return undefined;
		}
		await using before = await this.#services.cache.get(old.result as RefId);
		await using after = await this.#services.cache.get(id as RefId);
		const [oldDir, newDir] = [await this.#topLayer(before), await this.#topLayer(after)];
		if (oldDir === undefined || newDir === undefined || oldDir === newDir) {
			return undefined;
		}
		const { files, total } = differences(oldDir, newDir);
		return total === 0
			? undefined
			: {
					kind: "files",
					from: originOf(steps[from.step]),
					files: files.map(({ path, change }) => ({ path: sourcePath(op, path), change })),
					total,
				};
	}

	async #topLayer(ref: ImmutableRef | undefined): Promise<string | undefined> {
		const layers = (await ref?.layers({ signal: this.#options.signal })) ?? [];
		const snapshot = layers.at(-1)?.snapshot;
		return snapshot === undefined ? undefined : this.#services.layerDirectory(snapshot);
	}
}

type FilesReason = Extract<Reason, { readonly kind: "files" }>;

function mountedInputs({ inputs }: PresentStep): readonly number[] {
	return inputs.flatMap(({ role, step }) => (role === "files" ? [step] : []));
}

interface Known {
	readonly pair: Pair<StepNote> | undefined;
	readonly steps: readonly PresentStep[];
	readonly before: readonly StepNote[];
	readonly pairs: ReadonlyMap<number, Pair<StepNote>>;
}

function fieldReasons(old: StepNote, now: StepNote): Reason[] {
	const reasons: Reason[] = [];
	for (const name of new Set([...Object.keys(old.fields), ...Object.keys(now.fields)])) {
		const [before, after] = [old.fields[name], now.fields[name]];
		if (before === after) {
			continue;
		}
		if (name.startsWith(variablePrefix)) {
			const variable = name.slice(variablePrefix.length);
			reasons.push({
				kind: "argument",
				name: variable,
				before: shown(variable, before),
				after: shown(variable, after),
			});
		} else {
			reasons.push({ kind: "option", name, before, after });
		}
	}
	return reasons;
}

/** Arguments are no place for secrets, but that is known by whoever wrote them, if at all. */
function shown(name: string, value: string | undefined): string | undefined {
	const isSecret = /(?:^|_)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)/i.test(
		name,
	);
	return value === undefined || !isSecret ? value : "****";
}

function baseReason(old: StepNote, now: StepNote): Reason | undefined {
	const identifier = (step: StepNote): { readonly name: string; readonly digest: string } => {
		const text = step.fields["identifier"] ?? "";
		const [, name = text, digest = ""] = /^[a-z-]+:\/\/([^@]*)(?:@(.*))?$/.exec(text) ?? [];
		return { name, digest };
	};
	const [before, after] = [identifier(old), identifier(now)];
	const isImage = /^(?:docker-image|oci-layout):/.test(now.fields["identifier"] ?? "");
	if (!isImage || (before.name === after.name && before.digest === after.digest)) {
		return undefined;
	}
	const isSame = before.name === after.name;
	return {
		kind: "base",
		image: after.name,
		before: isSame ? before.digest : `${before.name}${before.digest && `@${before.digest}`}`,
		after: isSame ? after.digest : `${after.name}${after.digest && `@${after.digest}`}`,
	};
}

/** What a tree is made of, through merges and the like, which are nobody's: steps and sources, by number. */
function leavesOf(index: number, steps: readonly StepNote[]): readonly number[] {
	const step = steps[index];
	if (step === undefined) {
		return [];
	}
	return step.kind === "merge" || step.kind === "diff" || step.kind === "passthrough"
		? step.inputs.flatMap((input) => leavesOf(input.step, steps))
		: [index];
}

/** Not a line of the Dockerfile, but what one of them needs. */
function isInternal({ stage }: StepNote): boolean {
	return stage === "internal";
}

function originOf(step: PresentStep | undefined): string {
	if (step === undefined) {
		return "";
	}
	if (step.kind !== "source" && isInternal(step)) {
		return "the document in the Dockerfile";
	}
	if (step.kind !== "source") {
		return step.stage === "" ? step.name : `stage ${step.stage}`;
	}
	const identifier = step.fields["identifier"] ?? "";
	const context = /^local:\/\/(.*)$/.exec(identifier)?.[1];
	return context === undefined
		? identifier
		: context === "context"
			? "the build context"
			: `context ${context}`;
}
