/**
 * Rows of cells as Go's `text/tabwriter` aligns them with tabs of eight columns: a cell that is not the last of its row is as
 * wide as the widest of its column in the neighbouring rows that have it, and at least one more column wide.
 */
export function tabTable(rows: readonly (readonly string[])[]): string {
	const lines = rows.map((row) => [...row]);
	const widths = lines.map((): number[] => []);
	layOut(lines, widths, 0, lines.length, 0);
	return lines
		.map((row, at) => `${row.map((cell, column) => cell + tabs(cell, widths[at]?.[column])).join("")}\n`)
		.join("");
}

const tabWidth = 8;

function tabs(cell: string, width: number | undefined): string {
	return width === undefined ? "" : "\t".repeat(Math.ceil((width - cell.length) / tabWidth));
}

/** A column is a run of rows that all have a cell there with another behind it. */
function layOut(
	rows: readonly (readonly string[])[],
	widths: readonly number[][],
	from: number,
	to: number,
	column: number,
): void {
	const has = (row: number): boolean => column < (rows[row]?.length ?? 0) - 1;
	for (let start = from; start < to; start++) {
		if (!has(start)) {
			continue;
		}
		let end = start;
		let widest = 0;
		for (; end < to && has(end); end++) {
			widest = Math.max(widest, (rows[end]?.[column]?.length ?? 0) + 1);
		}
		const width = Math.ceil(widest / tabWidth) * tabWidth;
		for (let row = start; row < end; row++) {
			(widths[row] as number[])[column] = width;
		}
		layOut(rows, widths, start, end, column + 1);
		start = end;
	}
}
