import { chmodSync, chownSync, linkSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { makeDevice, makeNode } from "../sys/node.ts";
import { setXattr } from "../sys/xattr.ts";

/** The tree whose digests in `corpus/content-digests.json` are BuildKit's own. */
export function writeDigestTree(root: string): void {
	const directory = (path: string, mode = 0o755): void => {
		mkdirSync(`${root}${path}`);
		chmodSync(`${root}${path}`, mode);
	};
	const file = (path: string, data: string | Uint8Array, mode = 0o644): void => {
		writeFileSync(`${root}${path}`, data);
		chmodSync(`${root}${path}`, mode);
	};
	chmodSync(root, 0o755);
	directory("/app");
	file("/app/main.go", "package main\n");
	file("/app/main_test.go", "package main\n");
	file("/app/README.md", "# app\n");
	file("/app/.hidden", "");
	directory("/app/pkg", 0o2775);
	file("/app/pkg/a.go", "package pkg\n");
	file("/app/pkg/b.txt", "b\n", 0o600);
	directory("/app/pkg/sub");
	file("/app/pkg/sub/c.go", "package sub\n");
	directory("/app/node_modules");
	file("/app/node_modules/x.js", "x\n");
	directory("/app/empty", 0o1777);
	// Sorted by key, what a directory holds comes before names that only begin like it.
	file("/app.txt", "beside\n");
	file("/app-2", "beside\n");
	directory("/bin");
	file("/bin/setuid", "#!/bin/sh\n", 0o4755);
	linkSync(`${root}/bin/setuid`, `${root}/bin/linked`);
	makeNode(`${root}/bin/null`, "character", 0o666, makeDevice(1, 3));
	chmodSync(`${root}/bin/null`, 0o666);
	makeNode(`${root}/bin/fifo`, "fifo", 0o640);
	chmodSync(`${root}/bin/fifo`, 0o640);
	file("/bin/owned", "owned");
	chownSync(`${root}/bin/owned`, 1000, 2000);
	file("/bin/noted", "noted");
	setXattr(`${root}/bin/noted`, "user.note", Buffer.from([0, 255, 10, 65]));
	setXattr(`${root}/bin/noted`, "trusted.z", Buffer.from("z"));
	const capability = Buffer.from("0100000200040000000000000000000000000000", "hex");
	setXattr(`${root}/bin/noted`, "security.capability", capability);
	directory("/odd");
	file("/odd/ünï 文", "unicode");
	file("/odd/[x]", "class");
	file("/odd/a*b", "star");
	file("/odd/back\\slash", "slash");
	directory("/odd/dir");
	writeFileSync(Buffer.concat([Buffer.from(`${root}/odd/dir/`), Buffer.from([0xff, 0x61])]), "not UTF-8", {
		mode: 0o644,
	});
	symlinkSync("app", `${root}/relative`);
	symlinkSync("/app/pkg", `${root}/absolute`);
	symlinkSync("../../../bin", `${root}/app/out`);
	symlinkSync("loop-b", `${root}/loop-a`);
	symlinkSync("loop-a", `${root}/loop-b`);
	symlinkSync("nowhere", `${root}/dangling`);
	symlinkSync("main.go", `${root}/app/link.go`);
	symlinkSync("/", `${root}/odd/root`);
	file("/big", new Uint8Array(3_000_000).fill(7));
}

export interface DigestQuery {
	readonly path: string;
	readonly wildcard?: boolean;
	readonly follow?: boolean;
	readonly include?: readonly string[];
	readonly exclude?: readonly string[];
	readonly required?: readonly string[];
}

export const digestQueries: readonly DigestQuery[] = [
	{ path: "/" },
	{ path: "" },
	{ path: "/", wildcard: true },
	{ path: "/", include: ["**/*.go"] },
	{ path: "/", exclude: ["app"] },
	{ path: "/", exclude: ["**/*.go", "!app/pkg/a.go"] },
	{ path: "/app" },
	{ path: "/app/" },
	{ path: "app" },
	{ path: "/app/../app/./pkg" },
	{ path: "/app/main.go" },
	{ path: "/app/main.go", wildcard: true },
	{ path: "/app/main.go", include: ["*"] },
	{ path: "/app/empty" },
	{ path: "/app/.hidden" },
	{ path: "/app/link.go" },
	{ path: "/app/link.go", follow: true },
	{ path: "/app/link.go", follow: true, wildcard: true },
	{ path: "/app/l*.go", follow: true, wildcard: true },
	{ path: "/app/l*.go", follow: false, wildcard: true },
	{ path: "/app/*.go", wildcard: true },
	{ path: "/app/*.go", wildcard: true, follow: true },
	{ path: "/app/*/*.go", wildcard: true },
	{ path: "/a*", wildcard: true },
	{ path: "/*", wildcard: true, include: ["*.go", "sub"] },
	{ path: "/app/p?g", wildcard: true },
	{ path: "/app/[!m]*", wildcard: true },
	{ path: "/app/[a-q]*", wildcard: true, exclude: ["*.txt"] },
	{ path: "/nothing*", wildcard: true },
	{ path: "/app", include: ["pkg/sub"] },
	{ path: "/app", include: ["pkg/sub/**", "!pkg/sub/c.go"] },
	{ path: "/app", exclude: ["node_modules", "**/*_test.go"] },
	{ path: "/app", include: ["**/*.go"], exclude: ["pkg"] },
	{ path: "/app", include: ["nothing"] },
	{ path: "/app", follow: true, include: ["link.go"] },
	{ path: "/relative" },
	{ path: "/relative", follow: true },
	{ path: "/relative", follow: true, include: ["*.go"] },
	{ path: "/relative/main.go" },
	{ path: "/relative/*.go", wildcard: true },
	{ path: "/relative/pkg/*.go", wildcard: true, follow: true },
	{ path: "/absolute/a.go" },
	{ path: "/absolute", exclude: ["sub"] },
	{ path: "/absolute", exclude: ["sub"], follow: true },
	{ path: "/relative/out/setuid", follow: true },
	{ path: "/odd/root/odd/root/app/main.go" },
	{ path: "/odd/root/*.txt", wildcard: true },
	{ path: "/missing/../app.txt" },
	{ path: "/missing" },
	{ path: "/app/main.go/x" },
	{ path: "/dangling" },
	{ path: "/dangling", follow: true },
	{ path: "/d*", follow: true, wildcard: true },
	{ path: "/loop-a" },
	{ path: "/loop-a", follow: true },
	{ path: "/bin" },
	{ path: "/bin/setuid" },
	{ path: "/bin/linked" },
	{ path: "/bin/null" },
	{ path: "/bin/fifo" },
	{ path: "/bin/owned" },
	{ path: "/bin/noted" },
	{ path: "/odd" },
	{ path: "/odd/ünï 文" },
	{ path: "/odd/ü*", wildcard: true },
	{ path: "/odd/\\[x\\]", wildcard: true },
	{ path: "/odd/[[]x]", wildcard: true },
	{ path: "/odd/a\\*b", wildcard: true },
	{ path: "/odd/[x]", wildcard: true },
	{ path: "/big" },
	{ path: "/app", include: ["*.go"], required: ["/app/main"] },
	{ path: "/app", include: ["*.go"], required: ["/app/nothing"] },
];
