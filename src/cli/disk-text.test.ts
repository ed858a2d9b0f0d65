import assert from "node:assert/strict";
import { test } from "node:test";
import type { UsageRecord } from "../client/client.ts";
import { parseSelection, prunedText, usageText } from "./disk-text.ts";
import { humanDuration, humanSize } from "./human-units.ts";

const now = Date.parse("2026-01-02T03:04:05Z");
const record: UsageRecord = {
	id: "9o01h3b08mk3y953bsuobjgcm",
	mutable: true,
	inUse: false,
	size: 4128,
	parents: [],
	createdAt: Date.parse("2026-01-01T00:00:00.5Z"),
	lastUsedAt: now - 90_000,
	usageCount: 1,
	description: "local source for <context>",
	recordType: "source.local",
	shared: false,
};
const layer: UsageRecord = {
	...record,
	id: "sk9tiz2e74q80lykwze1es64i",
	mutable: false,
	inUse: true,
	size: 113_900_000,
	parents: ["a", "b"],
	lastUsedAt: undefined,
	description: "",
	recordType: "regular",
	shared: true,
};

/** What `docker buildx du` prints for such records. */
test("usageText: table, pretty, json, templates", () => {
	const records = [record, layer];
	assert.equal(
		usageText(records, { format: "table", summary: true, now }),
		`ID                           RECLAIMABLE   SIZE       LAST ACCESSED
9o01h3b08mk3y953bsuobjgcm*   true          4.128kB    About a minute ago
sk9tiz2e74q80lykwze1es64i    false         113.9MB*   
Shared:\t\t113.9MB
Private:\t4.128kB
Reclaimable:\t4.128kB
Total:\t\t113.9MB
`,
	);
	assert.equal(
		usageText(records, { format: "pretty", summary: false, now }),
		`ID:           9o01h3b08mk3y953bsuobjgcm
Created at:   2026-01-01 00:00:00.5 +0000 UTC
Mutable:      true
Reclaimable:  true
Shared:       false
Size:         4.128kB
Description:  local source for <context>
Usage count:  1
Last used:    About a minute ago
Type:         source.local

ID:           sk9tiz2e74q80lykwze1es64i
Parents:
 - a
 - b
Created at:   2026-01-01 00:00:00.5 +0000 UTC
Mutable:      false
Reclaimable:  false
Shared:       true
Size:         113.9MB
Usage count:  1
Type:         regular
`,
	);
	assert.equal(
		usageText([record], { format: "json", summary: true, now }),
		'{"CreatedAt":"2026-01-01 00:00:00.5 +0000 UTC","Description":"local source for \\u003ccontext\\u003e",' +
			'"ID":"9o01h3b08mk3y953bsuobjgcm","LastUsedAt":"About a minute ago","Mutable":true,"Parents":null,"Reclaimable":true,' +
			'"Shared":false,"Size":"4.128kB","Type":"source.local","UsageCount":1}\n',
	);
	assert.equal(
		usageText(records, { format: "{{.ID}}\\t{{.Size}}", summary: true, now }),
		"9o01h3b08mk3y953bsuobjgcm\t4.128kB\nsk9tiz2e74q80lykwze1es64i\t113.9MB\n",
	);
	assert.equal(
		usageText([record], { format: "table {{.Type}}\\t{{.ID}}", summary: true, now }),
		"TYPE           ID\nsource.local   9o01h3b08mk3y953bsuobjgcm*\n",
	);
});

test("prunedText: a table that grows, and the sum", () => {
	const text = prunedText(false, () => now);
	assert.equal(
		text.line(record) + text.line(layer) + text.total(),
		`ID\t\t\t\t\t\tRECLAIMABLE\tSIZE\t\tLAST ACCESSED
9o01h3b08mk3y953bsuobjgcm*              \ttrue \t\t4.128kB   \tAbout a minute ago
sk9tiz2e74q80lykwze1es64i               \tfalse\t113.9MB*  \t
Total:\t113.9MB
`,
	);
	assert.match(prunedText(true, () => now).line(layer), /^ID:\t\tsk9\S+\nParent:\t\ta,b\n/);
});

test("parseSelection: as buildx makes containerd's filters of --filter", () => {
	assert.deepEqual(parseSelection([]), { filters: [], unusedFor: undefined });
	assert.deepEqual(
		parseSelection(["Type = source.local", "id=ab", "description~=x=y", "private!=1", "until=24h"]),
		{
			filters: ["type==source.local,id~=ab,description~=x=y,private!=1"],
			unusedFor: "24h",
		},
	);
	assert.deepEqual(parseSelection(["unused-for=1h", ""]).unusedFor, "1h");
	for (const [given, message] of [
		[["x"], /bad format of filter/],
		[["id=a", "id=b"], /"id" filter expects only one value/],
		[["until=1h", "unused-for=1h"], /conflicting filters "until" and "unused-for"/],
	] as const) {
		assert.throws(() => parseSelection(given), message);
	}
});

test("sizes and times as Docker says them", () => {
	assert.deepEqual([0, 999, 1000, 4096, 12_345_678, 999_999, 1e12].map(humanSize), [
		"0B",
		"999B",
		"1kB",
		"4.096kB",
		"12.35MB",
		"1000kB",
		"1TB",
	]);
	const seconds = [
		0.4,
		1,
		59,
		60,
		119,
		120,
		3599,
		3600,
		5399,
		5400,
		47 * 3600,
		49 * 3600,
		15 * 86_400,
		61 * 86_400,
		800 * 86_400,
	];
	assert.deepEqual(
		seconds.map((each) => humanDuration(each * 1000)),
		[
			"Less than a second",
			"1 second",
			"59 seconds",
			"About a minute",
			"About a minute",
			"2 minutes",
			"59 minutes",
			"About an hour",
			"About an hour",
			"2 hours",
			"47 hours",
			"2 days",
			"2 weeks",
			"2 months",
			"2 years",
		],
	);
});
