import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { deflateRawSync } from "node:zlib";

/**
 * Writes src/api/generated from src/api/proto; with `--check` only compares, and ends with 1 if they differ.
 *
 * ts-proto gives TypeScript that Node can run as it is, but for what `adapt` changes: namespaces of types, the order in
 * which Go's deterministic encoding writes maps and oneofs, and strings that are not UTF-8.
 */
const root = dirname(import.meta.dirname);
const protoFolder = join(root, "src/api/proto");
const generatedFolder = join(root, "src/api/generated");

/** Read for the descriptors only: the messages are those of reflection.proto under another package. */
const withoutCode: ReadonlySet<string> = new Set(["reflection-alpha.proto"]);

const options = [
	"outputServices=none",
	"outputJsonMethods=false",
	"outputPartialMethods=false",
	"exportCommonSymbols=false",
	"annotateFilesWithVersion=false",
	"importSuffix=.ts",
	"esModuleInterop=true",
	"env=both",
	"enumsAsLiterals=true",
	"unrecognizedEnum=false",
	"oneof=unions-value",
	"useMapType=true",
	"useReadonlyTypes=true",
	// Nanoseconds stay: a Date has none.
	"useDate=false",
	"useJsTypeOverride=true",
	"snakeToCamel=keys",
];

/**
 * What differs by file; the first row whose pattern fits counts.
 *
 * `unknownFields`: the graph's digests are those of re-encoded ops, so that fields of newer clients must survive a round trip; so
 * must those of traces that are passed on.
 *
 * `longs`: an int64 is a safe number, or the decoder throws; fields with `jstype = JS_STRING` hold the whole range as text. Where
 * nanoseconds since the epoch are the rule it is a bigint, but for fields with `jstype = JS_NUMBER`.
 */
const rows: readonly {
	readonly files: RegExp;
	readonly unknownFields: boolean;
	readonly longs: "number" | "bigint";
}[] = [
	{ files: /^ops\.proto$/, unknownFields: true, longs: "number" },
	{ files: /^otlp\//, unknownFields: true, longs: "bigint" },
	{ files: /^fsutil\.proto$/, unknownFields: false, longs: "bigint" },
	{ files: /^/, unknownFields: false, longs: "number" },
];

function main(): void {
	const check = process.argv.includes("--check");
	const work = mkdtempSync(join(tmpdir(), "slipway-generate-"));
	try {
		const files = generate(work);
		const stale = check ? compare(files) : write(files);
		if (stale.length > 0) {
			console.error(
				`src/api/generated differs from src/api/proto, run "npm run generate": ${stale.join(", ")}`,
			);
			process.exitCode = 1;
		}
	} finally {
		rmSync(work, { recursive: true, force: true });
	}
}

/** Text by file name. */
function generate(work: string): ReadonlyMap<string, string> {
	const protos = readdirSync(protoFolder, { recursive: true, encoding: "utf8" }).filter(
		(name) => name.endsWith(".proto") && !withoutCode.has(name),
	);
	const files = new Map([["descriptors.ts", descriptors(work)]]);
	for (const [index, row] of rows.entries()) {
		const wanted = protos.filter((name) => rows.find(({ files }) => files.test(name)) === row);
		const out = join(work, String(index));
		const differing = [`forceLong=${row.longs}`, `unknownFields=${row.unknownFields}`];
		runTsProto(wanted, [...options, ...differing], out, work);
		for (const name of wanted.map((proto) => proto.replace(/\.proto$/, ".ts"))) {
			files.set(name, adapt(name, readFileSync(join(out, name), "utf8")));
		}
	}
	return files;
}

/** What reflection tells: a google.protobuf.FileDescriptorSet. */
function descriptors(work: string): string {
	const out = join(work, "descriptors.binpb");
	runBuf(["build", protoFolder, "--as-file-descriptor-set", "--exclude-source-info", "--output", out], work);
	const packed = deflateRawSync(readFileSync(out), { level: 9 }).toString("base64");
	return `// Written by scripts/generate.ts. DO NOT EDIT.

/** The google.protobuf.FileDescriptorSet of all .proto files, deflated, in base64. */
export const descriptors: string =
  "${packed}";
`;
}

function runTsProto(
	protos: readonly string[],
	pluginOptions: readonly string[],
	out: string,
	work: string,
): void {
	const require = createRequire(import.meta.url);
	const plugin = join(dirname(require.resolve("ts-proto/package.json")), "protoc-gen-ts_proto");
	const template = {
		version: "v2",
		plugins: [{ local: [process.execPath, plugin], out, opt: pluginOptions }],
	};
	const paths = protos.flatMap((name) => ["--path", join(protoFolder, name)]);
	runBuf(["generate", protoFolder, "--template", JSON.stringify(template), ...paths], work);
}

function runBuf(args: readonly string[], work: string): void {
	const { status, stderr, error } = spawnSync(findBuf(createRequire(import.meta.url)), args, {
		encoding: "utf8",
		env: { ...process.env, BUF_CACHE_DIR: join(work, "cache") },
	});
	if (error !== undefined || status !== 0) {
		throw new Error(`buf failed: ${stderr || error?.message || `exit code ${status}`}`);
	}
}

/** The program in buf's package for this platform; buf's own start script needs npm's install scripts to have run. */
function findBuf(require: NodeJS.Require): string {
	const buf = createRequire(require.resolve("@bufbuild/buf/package.json"));
	const arch = process.platform === "linux" && process.arch === "arm64" ? "aarch64" : process.arch;
	return buf.resolve(`@bufbuild/buf-${process.platform}-${arch}/bin/buf`);
}

function adapt(name: string, generated: string): string {
	const depth = name.split("/").length;
	const toApi = "../".repeat(depth);
	let text = generated
		.replace("/* eslint-disable */\n", "")
		// Types named like the members of an enum: nobody needs them, and namespaces are not erasable syntax.
		.replace(/^export namespace \w+ \{\n(?: {2}export type .*\n)*\}\n\n/gm, "")
		.replace(/\bcreateBase(?=[A-Z])/g, "empty")
		.replace(/^function empty/gm, "export function empty")
		.replaceAll("reader.string()", "reader.string(true)")
		// A field that reaches past the end of the message that it is in, or a tag that ends it early.
		.replace(
			/^ {6}return message;\n(?= {4}\} finally)/gm,
			'      if (reader.pos !== end) {\n        throw new RangeError("cannot parse invalid wire-format data");\n      }\n$&',
		);
	const maps = /message\.(\w+)\.forEach\(\(value, key\) => \{\n(.*)\n {4}\}\);/g;
	if (maps.test(text)) {
		text = text
			.replace(maps, "for (const [key, value] of sortedEntries(message.$1)) {\n$2\n    }")
			.replaceAll("{ key: key as any, value }", "{ key, value }")
			.replace(
				/^(import .* from "@bufbuild\/protobuf\/wire";\n)/m,
				`$1import { sortedEntries } from "${toApi}map-entries.ts";\n`,
			);
	}
	text = text.replace(/^export const \w+_\w+Entry: [\s\S]*?return writer;/gm, writeAlways);
	text = text.replace(/^ {2}encode\([\s\S]*?^ {4}return writer;/gm, moveOneofs);
	for (const left of ["namespace ", ".forEach(", "globalThis.Buffer"]) {
		if (text.includes(left)) {
			throw new Error(
				`the code for ${name} has ${JSON.stringify(left)}: ts-proto changed, adapt scripts/generate.ts`,
			);
		}
	}
	return text;
}

/** Go writes both fields of a map's entry also when they are empty. */
function writeAlways(encoder: string): string {
	const changed = encoder.replace(
		/^ {4}if \(message\.(?:key|value)(?:\.length)? !== (?:""|0|false|"0")\) \{\n {6}(.*)\n {4}\}\n/gm,
		"    $1\n",
	);
	if (changed === encoder) {
		throw new Error("the encoder of a map entry has changed: adapt scripts/generate.ts");
	}
	return changed;
}

/** Go writes the fields by number, but members of a oneof after all others; unknown ones come last. */
function moveOneofs(encoder: string): string {
	const oneofs: string[] = [];
	const rest = encoder.replace(/^ {4}switch \(message\.\w+\?\.\$case\) \{\n[\s\S]*?^ {4}\}\n/gm, (oneof) => {
		oneofs.push(oneof);
		return "";
	});
	const end = rest.search(/^ {4}(?:if \(message\._unknownFields|return writer;)/m);
	return rest.slice(0, end) + oneofs.join("") + rest.slice(end);
}

/** The names of what differs, or is there and should not be. */
function compare(files: ReadonlyMap<string, string>): string[] {
	const present = readdirSync(generatedFolder, { recursive: true, encoding: "utf8" }).filter((name) =>
		name.endsWith(".ts"),
	);
	const stale = present.filter((name) => !files.has(name));
	for (const [name, text] of files) {
		if (!present.includes(name) || readFileSync(join(generatedFolder, name), "utf8") !== text) {
			stale.push(name);
		}
	}
	return stale;
}

function write(files: ReadonlyMap<string, string>): string[] {
	rmSync(generatedFolder, { recursive: true, force: true });
	for (const [name, text] of files) {
		mkdirSync(dirname(join(generatedFolder, name)), { recursive: true });
		writeFileSync(join(generatedFolder, name), text);
	}
	return [];
}

main();
