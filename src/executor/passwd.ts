import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { SlipwayError } from "../errors/errors.ts";
import { resolveInRoot } from "../sys/root-path.ts";

/** Users and groups of a root file system, as its /etc/passwd and /etc/group have them. */
export interface UserIds {
	readonly uid: number;
	readonly gid: number;
	/** Supplementary groups; empty when user and group were both given as ids. */
	readonly additionalGids: readonly number[];
}

/** Larger files are somebody's attack. */
const maxFileBytes = 10 * 1024 * 1024;
const maxId = 0xffff_ffff;

/**
 * Looks up `user[:group]`, names or ids. An id that is not in the files is used as it is, with group 0 for a user without one.
 * Throws `invalid-argument` for a name that the files do not have. Empty is root.
 */
export function lookupUser(root: string, user: string): UserIds {
	const [name = "", groupName] = splitOnce(user === "" ? "0" : user);
	const uid = parseId(name);
	const gid = groupName === undefined ? undefined : parseId(groupName);
	if (uid !== undefined && gid !== undefined) {
		return { uid, gid, additionalGids: [] };
	}
	const entry = readEntries(root, "/etc/passwd").find(
		(fields) => fields[0] === name || (uid !== undefined && Number(fields[2]) === uid),
	);
	if (entry === undefined && uid === undefined) {
		throw new SlipwayError(
			"invalid-argument",
			`unable to find user ${name}: no matching entries in passwd file`,
		);
	}
	const foundUid = entry === undefined ? (uid ?? 0) : Number(entry[2]);
	const ownGid = entry === undefined ? 0 : Number(entry[3]);
	const groups = readEntries(root, "/etc/group");
	if (groupName !== undefined) {
		const group = groups.find(
			(fields) => fields[0] === groupName || (gid !== undefined && Number(fields[2]) === gid),
		);
		if (group === undefined && gid === undefined) {
			throw new SlipwayError(
				"invalid-argument",
				`unable to find group ${groupName}: no matching entries in group file`,
			);
		}
		return { uid: foundUid, gid: group === undefined ? (gid ?? 0) : Number(group[2]), additionalGids: [] };
	}
	const userName = entry?.[0];
	const additionalGids = groups
		.filter((fields) => userName !== undefined && (fields[3] ?? "").split(",").includes(userName))
		.map((fields) => Number(fields[2]));
	return { uid: foundUid, gid: ownGid, additionalGids };
}

/** The id of a user name and its primary group; undefined if the name is unknown or the file is missing. */
export function findUser(
	root: string,
	name: string,
): { readonly uid: number; readonly gid: number } | undefined {
	const entry = readEntries(root, "/etc/passwd").find((fields) => fields[0] === name);
	return entry === undefined ? undefined : { uid: Number(entry[2]), gid: Number(entry[3]) };
}

/** The id of a group name; undefined if the name is unknown or the file is missing. */
export function findGroup(root: string, name: string): number | undefined {
	const entry = readEntries(root, "/etc/group").find((fields) => fields[0] === name);
	return entry === undefined ? undefined : Number(entry[2]);
}

function splitOnce(text: string): readonly [string, string | undefined] {
	const colon = text.indexOf(":");
	return colon === -1 ? [text, undefined] : [text.slice(0, colon), text.slice(colon + 1)];
}

function parseId(text: string): number | undefined {
	return /^\d{1,10}$/.test(text) && Number(text) <= maxId ? Number(text) : undefined;
}

/** Lines with a name and a numeric id; a file that is missing or no regular file has none. */
function readEntries(root: string, path: string): readonly (readonly string[])[] {
	let fd: number;
	try {
		// Not blocking: the image may have a fifo there.
		fd = openSync(
			resolveInRoot(root, path),
			constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW,
		);
	} catch {
		return [];
	}
	try {
		const stat = fstatSync(fd);
		if (!stat.isFile()) {
			return [];
		}
		if (stat.size > maxFileBytes) {
			throw new SlipwayError(
				"invalid-argument",
				`${path} in the image has ${stat.size} bytes, more than ${maxFileBytes}`,
			);
		}
		const data = Buffer.alloc(stat.size);
		const length = readSync(fd, data, 0, stat.size, 0);
		return data
			.toString("utf8", 0, length)
			.split("\n")
			.map((line) => line.trim().split(":"))
			.filter((fields) => fields[0] !== "" && !fields[0]?.startsWith("#") && /^\d+$/.test(fields[2] ?? ""));
	} finally {
		closeSync(fd);
	}
}
