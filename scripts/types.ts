/** Declarations of the library's entries and of what they refer to: dist/types/, for programs in TypeScript. */
import { spawnSync } from "node:child_process";
import { globSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";

const root = resolve(import.meta.dirname, "..");
const out = join(root, "dist/types");

/** Throws with the compiler's messages. */
export function writeTypes(): void {
	const require = createRequire(import.meta.url);
	const compiler = join(dirname(require.resolve("typescript/package.json")), "bin/tsc");
	const config = {
		extends: join(root, "tsconfig.json"),
		compilerOptions: { noEmit: false, emitDeclarationOnly: true, rootDir: join(root, "src"), outDir: out },
		include: [],
		files: ["index", "llb"].map((entry) => join(root, `src/library/${entry}.ts`)),
	};
	const file = join(root, "tsconfig.types.json");
	rmSync(out, { recursive: true, force: true });
	writeFileSync(file, JSON.stringify(config));
	try {
		const { status, stdout, stderr } = spawnSync(process.execPath, [compiler, "-p", file], {
			encoding: "utf8",
		});
		if (status !== 0) {
			throw new Error(`no declarations: ${stdout}${stderr}`);
		}
	} finally {
		rmSync(file, { force: true });
	}
	const wanted = new Set<string>();
	for (const entry of ["index", "llb"]) {
		keepWithImports(join(out, `library/${entry}.d.ts`), wanted);
	}
	for (const name of globSync("**/*.d.ts", { cwd: out })) {
		if (!wanted.has(join(out, name))) {
			rmSync(join(out, name));
		}
	}
}

/** What is imported is JavaScript there. */
function keepWithImports(path: string, wanted: Set<string>): void {
	if (wanted.has(path)) {
		return;
	}
	wanted.add(path);
	const text = readFileSync(path, "utf8");
	const imported: string[] = [];
	const adapted = text.replace(/(from |import\()"(\.[^"]*)\.ts"/g, (_, before: string, target: string) => {
		imported.push(resolve(dirname(path), `${target}.d.ts`));
		return `${before}"${target}.js"`;
	});
	writeFileSync(path, adapted);
	for (const target of imported) {
		keepWithImports(target, wanted);
	}
}
