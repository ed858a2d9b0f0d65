import { type Answer, answerJson, locationJson } from "./answers.ts";
import type { OutlineAccess, OutlineArg, StageOutline } from "./outline-capture.ts";
import type { StageState } from "./stage-state.ts";
import { formatTable } from "./tab-table.ts";

/** `frontend.outline`: what the target can be given, its bases and the stages that it uses included. */
export function answerOutline(target: StageState, data: Uint8Array): Answer {
	const { stage } = target;
	const args = new Map<string, OutlineArg>();
	const secrets = new Map<string, OutlineAccess>();
	const ssh = new Map<string, OutlineAccess>();
	const seen = new Set<StageState>();
	const collect = (state: StageState): void => {
		if (seen.has(state)) {
			return;
		}
		seen.add(state);
		for (const [name, arg] of usedArgs(state.outline)) {
			addNew(args, name, arg);
		}
		for (const [name, secret] of state.outline.secrets) {
			addNew(secrets, name, secret);
		}
		for (const [name, agent] of state.outline.ssh) {
			addNew(ssh, name, agent);
		}
		for (const other of [...(state.base === undefined ? [] : [state.base]), ...state.uses.keys()]) {
			collect(other);
		}
	};
	collect(target);

	const orNone = <T>(list: readonly T[]): readonly T[] | undefined => (list.length === 0 ? undefined : list);
	const argList = byLine(args).map(([name, { declaration, value, ranges }]) => ({
		name,
		description: declaration.description === "" ? undefined : declaration.description,
		value: value === "" ? undefined : value,
		location: ranges.length === 0 ? undefined : locationJson(ranges),
	}));
	const access = (map: ReadonlyMap<string, OutlineAccess>) =>
		byLine(map).map(([name, { required, ranges }]) => ({
			name,
			required: required ? true : undefined,
			location: ranges.length === 0 ? undefined : locationJson(ranges),
		}));
	const secretList = access(secrets);
	const sshList = access(ssh);
	const json = answerJson({
		name: stage.name === "" ? undefined : stage.name,
		description: stage.description === "" ? undefined : stage.description,
		args: orNone(argList),
		secrets: orNone(secretList),
		ssh: orNone(sshList),
		sources: [data],
	});
	const sections: string[] = [];
	if (stage.name !== "" || stage.description !== "") {
		const rows = [["TARGET:", stage.name === "" ? "(default)" : stage.name]];
		if (stage.description !== "") {
			rows.push(["DESCRIPTION:", stage.description]);
		}
		sections.push(formatTable(rows, 1));
	}
	if (argList.length > 0) {
		const rows = argList.map(({ name, value = "", description = "" }) => [name, value, description]);
		sections.push(formatTable([["BUILD ARG", "VALUE", "DESCRIPTION"], ...rows], 3));
	}
	for (const [title, list] of [
		["SECRET", secretList],
		["SSH", sshList],
	] as const) {
		if (list.length > 0) {
			const rows = list.map(({ name, required }) => [name, required === true ? "true" : ""]);
			sections.push(formatTable([[title, "REQUIRED"], ...rows], 3));
		}
	}
	return { json, text: sections.map((section) => `${section}\n`).join(""), version: "1.0.0" };
}

/** The stage's ARGs that are used, and those that their defaults are made from. */
function usedArgs({ args, usedArgs: used }: StageOutline): ReadonlyMap<string, OutlineArg> {
	const found = new Map<string, OutlineArg>();
	const open = [...used];
	const seen = new Set<string>();
	for (let name = open.shift(); name !== undefined; name = open.shift()) {
		const arg = args.get(name);
		if (seen.has(name) || arg === undefined) {
			continue;
		}
		seen.add(name);
		found.set(name, arg);
		open.push(...arg.uses);
	}
	return found;
}

function addNew<T>(map: Map<string, T>, name: string, value: T): void {
	if (!map.has(name)) {
		map.set(name, value);
	}
}

function byLine<T extends Pick<OutlineArg, "ranges">>(
	map: ReadonlyMap<string, T>,
): readonly (readonly [string, T])[] {
	const line = ({ ranges }: T): number => ranges[0]?.start.line ?? 0;
	return [...map].sort(([, a], [, b]) => line(a) - line(b));
}
