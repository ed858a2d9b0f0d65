import { closeSync, constants, lstatSync, openSync, readdirSync, type Stats } from "node:fs";
import { wrap } from "../errors/errors.ts";
import { type ByteString, fsPath } from "../sys/byte-names.ts";
import {
	addRow,
	column,
	createTreeStateBuilder,
	presentFlag,
	rowLength,
	shownFlag,
	type TreeState,
	type TreeStateBuilder,
} from "./tree-state.ts";

/** What a target holds, when nobody remembers: the rows of its own files. Undefined if it is empty. */
export function observeTree(root: string, throwIfAborted: () => void): TreeState | undefined {
	const builder = createTreeStateBuilder(0);
	const links = new Map<string, number>();
	const visit = (path: string, name: ByteString, stat: Stats): void => {
		if (builder.count % 256 === 0) {
			throwIfAborted();
		}
		const row = record(builder, name, stat);
		if (stat.isDirectory()) {
			const fd = openSync(
				path === "" ? root : fsPath(path),
				constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW,
			);
			try {
				const here = `/proc/self/fd/${fd}`;
				for (const child of readdirSync(here, "latin1").sort((a, b) => (a < b ? -1 : 1))) {
					const below = `${here}/${child}`;
					visit(below, child, lstatSync(fsPath(below)));
				}
			} finally {
				closeSync(fd);
			}
		} else if (stat.nlink > 1) {
			const key = `${stat.dev}:${stat.ino}`;
			const first = links.get(key);
			if (first === undefined) {
				links.set(key, row);
			} else {
				builder.rows[row * rowLength + column.link] = first;
			}
		}
		builder.rows[row * rowLength + column.end] = builder.count;
	};
	try {
		visit("", "", lstatSync(root));
	} catch (thrown) {
		throw wrap(thrown, `could not look at the copy in ${root}`);
	}
	if (builder.count === 1) {
		return undefined;
	}
	return {
		count: builder.count,
		names: builder.names,
		ascii: false,
		rows: builder.rows.subarray(0, builder.count * rowLength),
		filterKey: "",
		fromSource: false,
	};
}

function record(builder: TreeStateBuilder, name: ByteString, stat: Stats): number {
	const row = builder.count;
	const at = addRow(builder, name);
	const { rows } = builder;
	rows[at + column.mode] = stat.mode + presentFlag + shownFlag;
	rows[at + column.size] = stat.size;
	rows[at + column.modified] = stat.mtimeMs;
	rows[at + column.changed] = Number.NaN;
	rows[at + column.link] = -1;
	return row;
}
