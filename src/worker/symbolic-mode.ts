import { SlipwayError } from "../errors/errors.ts";

/** Permission bits with setuid, setgid and sticky. */
const allBits = 0o7777;

interface Clause {
	/** Bits of the classes that are changed, such as 0o700 for the owner's. */
	readonly who: number;
	readonly operator: string;
	readonly permissions: string;
}

/**
 * A mode in chmod's words (`u=rwX,go=rX`), as a function from a file's mode to its new one. No umask applies. Throws
 * `invalid-argument`.
 */
export function parseSymbolicMode(text: string): (mode: number, isDirectory: boolean) => number {
	const clauses = text.split(",").flatMap((part) => parseClauses(part, text));
	return (mode, isDirectory) =>
		clauses.reduce((current, clause) => applyClause(clause, current, isDirectory), mode & allBits);
}

function parseClauses(part: string, whole: string): readonly Clause[] {
	const match = /^([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)$/.exec(part);
	if (match === null) {
		throw new SlipwayError("invalid-argument", `invalid mode ${JSON.stringify(whole)}`);
	}
	const [, classes = "", actions = ""] = match;
	const who = classMask(classes === "" ? "a" : classes);
	return [...actions.matchAll(/([-+=])([ugo]|[rwxXst]*)/g)].map(([, operator = "", permissions = ""]) => ({
		who,
		operator,
		permissions,
	}));
}

function classMask(classes: string): number {
	const masks: Readonly<Record<string, number>> = { u: 0o4700, g: 0o2070, o: 0o1007, a: allBits };
	return [...classes].reduce((mask, name) => mask | (masks[name] ?? 0), 0);
}

function applyClause({ who, operator, permissions }: Clause, mode: number, isDirectory: boolean): number {
	const bits = permissionBits(permissions, mode, isDirectory) & who;
	switch (operator) {
		case "+":
			return mode | bits;
		case "-":
			return mode & ~bits;
		default:
			// A directory keeps setuid and setgid unless they are named.
			return (mode & ~(isDirectory ? who & 0o1777 : who)) | bits;
	}
}

function permissionBits(permissions: string, mode: number, isDirectory: boolean): number {
	const copied: Readonly<Record<string, number>> = { u: (mode >> 6) & 7, g: (mode >> 3) & 7, o: mode & 7 };
	const source = copied[permissions];
	if (source !== undefined) {
		return source * 0o111;
	}
	return [...permissions].reduce((bits, letter) => {
		switch (letter) {
			case "r":
				return bits | 0o444;
			case "w":
				return bits | 0o222;
			case "x":
				return bits | 0o111;
			case "X":
				return isDirectory || (mode & 0o111) !== 0 ? bits | 0o111 : bits;
			case "s":
				return bits | 0o6000;
			default:
				return bits | 0o1000;
		}
	}, 0);
}
