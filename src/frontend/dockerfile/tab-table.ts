/** Rows of cells as Go's `text/tabwriter` aligns them with blanks: the last cell of a row is never padded. */
export function formatTable(rows: readonly (readonly string[])[], padding: number): string {
	const widths: number[] = [];
	for (const row of rows) {
		for (const [column, cell] of row.slice(0, -1).entries()) {
			widths[column] = Math.max(widths[column] ?? 0, [...cell].length);
		}
	}
	const lines = rows.map((row) =>
		row
			.map((cell, column) => {
				const missing = (widths[column] ?? 0) + padding - [...cell].length;
				return column === row.length - 1 ? cell : cell + " ".repeat(missing);
			})
			.join(""),
	);
	return lines.map((line) => `${line}\n`).join("");
}
