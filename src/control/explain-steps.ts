import type { Definition, LoadedOp } from "../llb/llb.ts";
import { load } from "../llb/load.ts";
import type { ExecOp, FileOp, Op } from "../llb/op.ts";
import { formatPlatform } from "../oci/platform.ts";

/** What is kept of one op of a build, so that a later one can be compared with it. */
export interface StepNote {
	readonly name: string;
	/** The instruction's text; empty for what is none. */
	readonly command: string;
	/** What comes before it in its stage: `build` of `[build 2/4]`. */
	readonly stage: string;
	readonly kind: Op["kind"];
	/** All that its result depends on but for its inputs, by a name that a person knows. */
	readonly fields: Readonly<Record<string, string>>;
	readonly inputs: readonly InputNote[];
	/** Of the cache record that it was kept as. */
	readonly result?: string;
	/** Of a client's directory that processes had mounted: what its files looked like, by path. */
	readonly listing?: Readonly<Record<string, string>>;
	readonly place?: { readonly file: string; readonly line: number };
}

export interface InputNote {
	/** Number of the step in the list. */
	readonly step: number;
	/** `base`: it is changed, or is the root of a process; `files`: files are taken from it. */
	readonly role: "base" | "files";
}

/** A step of the present build, with what is known of it only now. */
export interface PresentStep extends StepNote {
	readonly digest: string;
	readonly ignoreCache: boolean;
	readonly op: Op;
}

const commandKey = "com.docker.dockerfile.v1.command";

/** The ops of graphs, inputs before users; what several have in common is there once. */
export function stepsOf(definitions: readonly Definition[]): readonly PresentStep[] {
	const steps: PresentStep[] = [];
	const numbers = new Map<string, number>();
	for (const definition of definitions.filter(({ ops }) => ops.length > 0)) {
		for (const loaded of load(definition).ops.values()) {
			if (!numbers.has(loaded.digest)) {
				numbers.set(loaded.digest, steps.length);
				steps.push(presentStep(loaded, numbers));
			}
		}
	}
	return steps;
}

function presentStep(loaded: LoadedOp, numbers: ReadonlyMap<string, number>): PresentStep {
	const { op, name, metadata, digest } = loaded;
	const [source] = loaded.sources;
	const line = source?.ranges[0]?.start.line;
	return {
		name,
		command: metadata?.description?.get(commandKey) ?? "",
		stage: /^\[([^\]]*?)\s+\d+\/\d+\]/.exec(name)?.[1] ?? /^\[([^\]]*)\]/.exec(name)?.[1] ?? "",
		kind: op.kind,
		fields: fieldsOf(op),
		inputs: op.inputs.map((input, index) => ({
			step: numbers.get(input.digest) ?? -1,
			role: isBase(op, index) ? "base" : "files",
		})),
		...(source === undefined || line === undefined ? {} : { place: { file: source.file.filename, line } }),
		digest,
		ignoreCache: metadata?.ignoreCache ?? false,
		op,
	};
}

function isBase(op: Op, input: number): boolean {
	switch (op.kind) {
		case "exec":
			return op.mounts.some(
				(mount) => mount.input === input && (mount.dest === "/" || mount.output !== undefined),
			);
		case "file":
			return op.actions.some((action) => action.input === input);
		case "source":
		case "merge":
		case "diff":
		case "passthrough":
		case "build":
			return true;
	}
}

function fieldsOf(op: Op): Readonly<Record<string, string>> {
	const platform = op.platform === undefined ? {} : { platform: formatPlatform(op.platform) };
	switch (op.kind) {
		case "exec":
			return { ...platform, ...execFields(op) };
		case "file":
			return fileFields(op);
		case "source":
			return {
				...platform,
				identifier: op.identifier,
				...Object.fromEntries(
					[...op.attrs].filter(
						([name]) => !/^(?:local\.(?:session|unique)|oci\.(?:session|store))$/.test(name),
					),
				),
			};
		case "merge":
		case "diff":
		case "passthrough":
		case "build":
			return {};
	}
}

/** `variable X` is an environment variable, a build argument too. */
export const variablePrefix = "variable ";

function execFields({
	meta,
	mounts,
	network,
	security,
	secretEnv,
}: ExecOp): Readonly<Record<string, string>> {
	const fields: Record<string, string> = {
		command: meta.args.join(" "),
		"working directory": meta.cwd,
		user: meta.user,
		network,
		security,
		hostname: meta.hostname,
	};
	for (const entry of meta.env) {
		const equals = entry.indexOf("=");
		fields[variablePrefix + entry.slice(0, equals)] = entry.slice(equals + 1);
	}
	for (const { input: _, output: __, dest, ...mount } of mounts) {
		fields[`mount ${dest}`] = textOf(mount);
	}
	for (const { name, ...secret } of secretEnv) {
		fields[`secret ${name}`] = textOf(secret);
	}
	return fields;
}

function fileFields({ actions }: FileOp): Readonly<Record<string, string>> {
	const fields: Record<string, string> = {};
	for (const [index, action] of actions.entries()) {
		const { input: _, output: __, ...rest } = action;
		if (rest.kind === "mkfile") {
			// The text of a document.
			fields[`file ${rest.path}`] = new TextDecoder().decode(rest.data);
		}
		for (const [name, value] of Object.entries(rest)) {
			if (name !== "data" && name !== "secondaryInput" && name !== "kind") {
				fields[actions.length === 1 ? name : `${name} ${index + 1}`] = textOf(value);
			}
		}
	}
	return fields;
}

function textOf(value: unknown): string {
	return typeof value === "string"
		? value
		: (JSON.stringify(value, (_, each: unknown) => (typeof each === "bigint" ? String(each) : each)) ?? "");
}
