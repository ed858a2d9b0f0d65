/**
 * The rooms of src/ and what each may import: a room may import only rooms above it, and only those that it names, so that a
 * cycle cannot be written. `checkRooms` holds this table against the imports (types count). DESIGN: see ARCHITECTURE.md, "Rooms".
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";

const toAttestation = ["oci", "llb"];
const toSource = [
	"async",
	"patterns",
	"database",
	"oci",
	"progress",
	"sys",
	"api",
	"archive",
	"content",
	"registry",
	"snapshot",
	"session",
	"llb",
	"solver",
	"cache",
];

/** In order. `errors` may be imported by all. */
export const rooms: Readonly<Record<string, readonly string[]>> = {
	errors: [],
	async: [],
	patterns: [],
	database: ["async"],
	oci: [],
	progress: ["oci"],
	sys: ["async"],
	api: ["async"],
	archive: ["async", "patterns", "oci", "sys"],
	content: ["async", "database", "oci"],
	registry: ["async", "oci", "content"],
	snapshot: ["async", "oci", "sys", "archive"],
	executor: ["async", "oci", "sys"],
	session: ["async", "patterns", "oci", "progress", "sys", "api", "content"],
	llb: ["oci", "api", "patterns"],
	solver: ["async", "oci", "progress"],
	cache: [
		"async",
		"patterns",
		"database",
		"oci",
		"progress",
		"sys",
		"archive",
		"content",
		"snapshot",
		"solver",
	],
	source: toSource,
	attestation: toAttestation,
	exporter: [
		"async",
		"oci",
		"progress",
		"sys",
		"archive",
		"content",
		"registry",
		"session",
		"solver",
		"cache",
		"attestation",
	],
	// Between them because caches are kept in registries, by the exporters' rules for layers, and no room above needs it but control.
	remotecache: [
		"async",
		"oci",
		"progress",
		"sys",
		"archive",
		"content",
		"registry",
		"session",
		"solver",
		"cache",
		"exporter",
	],
	frontend: ["async", "patterns", "oci", "progress", "api", "llb"],
	worker: [
		"async",
		"patterns",
		"oci",
		"progress",
		"sys",
		"archive",
		"content",
		"snapshot",
		"executor",
		"session",
		"llb",
		"solver",
		"cache",
		"source",
		"frontend",
	],
	control: [
		"async",
		"patterns",
		"database",
		"oci",
		"progress",
		"api",
		"content",
		"snapshot",
		"session",
		"llb",
		"solver",
		"cache",
		"source",
		"attestation",
		"exporter",
		"remotecache",
		"frontend",
		"worker",
	],
	client: ["async", "oci", "progress", "api", "session", "llb"],
	daemon: [
		...toSource,
		"executor",
		"source",
		"attestation",
		"exporter",
		"remotecache",
		"frontend",
		"worker",
		"control",
		"client",
	],
	// Of sys only what makes directories: Node's own way may never end.
	cli: [
		"async",
		"patterns",
		"oci",
		"progress",
		"sys",
		"content",
		"llb",
		"session",
		"control",
		"client",
		"daemon",
	],
	library: ["async", "oci", "progress", "content", "llb", "session", "control", "client", "daemon"],
	web: ["api", "client"],
};

const importPattern =
	/(?:^|[\s;])(?:import|export)\s[^"';]*?from\s*"(\.[^"]+)"|import\(\s*"(\.[^"]+)"\s*\)|^import\s+"(\.[^"]+)"/gm;

/** One line for each import, folder or row that breaks the table; empty when all is well. */
export function checkRooms(src: string): readonly string[] {
	const names = Object.keys(rooms);
	const problems: string[] = [];
	for (const [room, allowed] of Object.entries(rooms)) {
		for (const other of allowed) {
			if (names.indexOf(other) >= names.indexOf(room) || !names.includes(other)) {
				problems.push(`the table lets ${room} import ${other}, which is not a row above it`);
			}
		}
	}
	for (const entry of readdirSync(src, { withFileTypes: true })) {
		if (entry.isDirectory() && rooms[entry.name] === undefined) {
			problems.push(`src/${entry.name} is not a room`);
		}
	}
	for (const entry of readdirSync(src, { withFileTypes: true, recursive: true })) {
		// A test is nobody's dependency: it may use whatever it needs.
		if (entry.isFile() && entry.name.endsWith(".ts") && !/\.(test|fixture)\.ts$/.test(entry.name)) {
			problems.push(...checkFile(src, join(entry.parentPath, entry.name)));
		}
	}
	return problems;
}

function checkFile(src: string, file: string): readonly string[] {
	const room = roomOf(src, file);
	if (room === undefined) {
		return [];
	}
	const problems: string[] = [];
	for (const match of readFileSync(file, "utf8").matchAll(importPattern)) {
		const target = resolve(dirname(file), match[1] ?? match[2] ?? match[3] ?? "");
		const other = roomOf(src, target);
		const where = relative(src, file);
		if (other === undefined) {
			problems.push(`${where} imports ${relative(src, target)}, which is in no room`);
		} else if (other !== room && other !== "errors" && !(rooms[room] ?? []).includes(other)) {
			problems.push(`${where}: ${room} may not import ${other}`);
		} else if (other !== room && relative(src, target).split(sep).includes("internal")) {
			problems.push(`${where} reaches into ${relative(src, target)}`);
		}
	}
	return problems;
}

function roomOf(src: string, file: string): string | undefined {
	const parts = relative(src, file).split(sep);
	return parts.length < 2 || parts[0] === ".." ? undefined : parts[0];
}
