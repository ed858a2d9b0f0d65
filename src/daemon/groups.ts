import { readFileSync } from "node:fs";
import { SlipwayError } from "../errors/errors.ts";

/** The number of a group that is given by name or number. */
export function groupId(group: string, file = "/etc/group"): number {
	if (/^\d+$/.test(group)) {
		return Number(group);
	}
	for (const line of readFileSync(file, "utf8").split("\n")) {
		const [name, , id] = line.split(":");
		if (name === group && id !== undefined) {
			return Number(id);
		}
	}
	throw new SlipwayError("not-found", `group: unknown group ${group}`);
}
