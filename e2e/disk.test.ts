/** What `du` says is what the disk says; what `prune` says it freed is what the disk got back: by du(1) and statfs(2). */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, rmSync, statfsSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { DaemonBench } from "./support/daemon.ts";
import { busyboxBase, program, Workbench } from "./support/slipway.ts";
import { tool } from "./support/tools.ts";

const bench = new Workbench();
after(() => bench[Symbol.dispose]());

const slipway = (args: readonly string[], root: string = bench.root): string =>
	tool(program, [args[0] ?? "", "--root", root, ...args.slice(1)], { env: { SLIPWAY_IN_PROCESS: "1" } });

const decimalUnits: Readonly<Record<string, number>> = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9 };

function bytesOf(text: string | undefined): number {
	const [, amount, unit = ""] = /^([\d.]+)(\w+)$/.exec(text ?? "") ?? [];
	return Number(amount) * (decimalUnits[unit] ?? Number.NaN);
}

const total = (printed: string): number => bytesOf(/^Total:\s+(\S+)$/m.exec(printed)?.[1]);

/** Within 2 %, and what rounding to four digits and a database page or two make of small sums. */
function assertClose(said: number, disk: number, what: string): void {
	assert.ok(Math.abs(said - disk) <= disk * 0.02 + 40_000, `${what}: said ${said}, the disk says ${disk}`);
}

const usedBytes = (root: string): number =>
	Number(/^\d+/.exec(tool("du", ["-s", "--block-size=1", root]))?.[0]);

/** Where files may go while it looks: more than anything then. */
function usedBytesSoon(root: string): number {
	try {
		return usedBytes(root);
	} catch {
		return Number.POSITIVE_INFINITY;
	}
}

/** 500 files and a large one: what is copied from it as it is, is linked. */
function largeContext(): string {
	const files: Record<string, string | Uint8Array> = { "data/large": randomBytes(8 << 20) };
	for (let at = 0; at < 500; at++) {
		files[`data/${at % 10}/file${at}`] = `${at}`.repeat(at);
	}
	const dir = bench.context({
		Dockerfile: `FROM base AS run
RUN --mount=type=cache,target=/cache head -c 3000000 /dev/urandom > /cache/f && head -c 5000000 /dev/urandom > /made
RUN rm /made && head -c 2000000 /dev/urandom > /other
FROM scratch AS copied
COPY data /data
FROM scratch AS linked
COPY --from=copied /data /again
COPY --link --from=run /other /
`,
		...files,
	});
	// Times with fractions are not kept everywhere.
	utimesSync(join(dir, "data/large"), 1e9, 1e9);
	return dir;
}

test("du is what the disk says and prune gives back what it says, kind by kind", async () => {
	const context = largeContext();
	const archive = bench.path("image.tar");
	await bench.build([
		...busyboxBase,
		"-t",
		"kept",
		"-o",
		`type=oci,dest=${archive}`,
		"-o",
		"type=image",
		context,
	]);
	const shown = slipway(["du"]);
	assert.match(shown, /^ID +RECLAIMABLE +SIZE +LAST ACCESSED\n/);
	assertClose(total(shown), usedBytes(bench.root), "du");
	const verbose = slipway(["du", "--verbose", "--filter", "type=exec.cachemount"]);
	assert.match(verbose, /^ID: +\w{25}\n[\s\S]*Mutable: +true\n[\s\S]*Type: +exec\.cachemount\n/);
	assert.doesNotMatch(verbose, /Total/);
	const records = slipway(["du", "--format", "json"])
		.trim()
		.split("\n")
		.map((line) => JSON.parse(line));
	assert.deepEqual([...new Set(records.map(({ Type }) => Type))].sort(), [
		"exec.cachemount",
		"internal",
		"regular",
		"source.local",
	]);
	assertClose(
		records.reduce((sum, { Size }) => sum + bytesOf(Size), 0),
		usedBytes(bench.root),
		"du --format json",
	);
	assert.match(
		slipway(["prune", "--filter", "type=source.local", "--filter", "until=1h", "--force"]),
		/^Total:\s+0B\n$/,
	);
	for (const args of [
		["--filter", "type=source.local"],
		["--filter", "type=exec.cachemount"],
		["--keep-storage", "6MB", "--max-used-space", "6MB"],
		[],
		["--all"],
	]) {
		const before = usedBytes(bench.root);
		const printed = slipway(["prune", "--force", ...args]);
		assertClose(total(printed), before - usedBytes(bench.root), `prune ${args.join(" ")}:\n${printed}`);
		assertClose(total(slipway(["du"])), usedBytes(bench.root), `du after prune ${args.join(" ")}`);
	}
	// What a named image has is not the cache's to remove.
	assert.match(slipway(["du"]), /^images +false +\S*MB +\n/m);
	const again = await bench.build([...busyboxBase, context]);
	assert.doesNotMatch(again.stderr, /CACHED/);
	await bench.build(["-o", bench.path("from-kept"), bench.context({ Dockerfile: "FROM kept\n" })]);
});

test("statfs sees what prune freed; the wanted free space is made, and no more", async (t) => {
	const root = bench.path("small-disk");
	mkdirSync(root);
	tool("mount", ["-t", "tmpfs", "-o", "size=200m", "slipway-test", root]);
	t.after(() => tool("umount", ["-l", root]));
	const free = (): number => {
		const { bfree, bsize } = statfsSync(root);
		return bfree * bsize;
	};
	for (const name of ["one", "two", "three"]) {
		const context = bench.context({ Dockerfile: "FROM scratch\nCOPY f /\n" });
		writeFileSync(join(context, "f"), randomBytes(10 << 20));
		await bench.build(["--root", root, "-o", `type=oci,dest=${bench.path(`${name}.tar`)}`, context]);
	}
	const wanted = free() + (15 << 20);
	let before = free();
	const some = slipway(["prune", "--force", "--min-free-space", String(wanted)], root);
	assertClose(total(some), free() - before, some);
	assert.ok(free() >= wanted && free() < wanted + (25 << 20), `${free()} free of ${wanted} wanted`);
	before = free();
	const rest = slipway(["prune", "--force", "--all"], root);
	assertClose(total(rest), free() - before, rest);
	assertClose(total(slipway(["du"], root)), usedBytes(root), "du");
});

test("prune asks first, and wrong values are named", async () => {
	const ask = (answer: string): string =>
		tool("sh", ["-c", `echo ${answer} | ${program} prune --all --root ${bench.root}`], {
			env: { SLIPWAY_IN_PROCESS: "1" },
		});
	assert.equal(
		ask("n"),
		"WARNING! This will remove all build cache. Are you sure you want to continue? [y/N] ",
	);
	assert.match(ask("y"), /\[y\/N\] [\s\S]*Total:/);
	for (const [args, message] of [
		[["prune", "--filter", "x"], /bad format of filter \(expected name=value\)/],
		[["prune", "--force", "--filter", "until=soon"], /expects a duration \(e\.g\., '24h'\)/],
		[["prune", "--force", "--max-used-space", "much"], /invalid disk space much/],
		[["prune", "--force", "--filter", "!!=x"], /failed to parse prune filters/],
		[["du", "--format", "json", "--verbose"], /--format and --verbose cannot be used together/],
		[["du", "extra"], /takes no arguments, but got extra/],
	] as const) {
		assert.throws(() => slipway(args), message, args.join(" "));
	}
});

test("the background builder answers for its own disk, and prune spares what a build uses", async () => {
	using background = new Workbench({ background: true });
	const context = background.context({
		Dockerfile: `FROM base
RUN head -c 3000000 /dev/urandom > /one
RUN --mount=type=cache,target=/gate touch /gate/closed && echo waits && while test -e /gate/closed; do sleep 0.1; done && test -s /one
`,
	});
	const unused = background.context({ Dockerfile: "FROM base\nRUN head -c 3000000 /dev/urandom > /one\n" });
	await background.build([...busyboxBase, unused]);
	const builder = background.start([...busyboxBase, "--no-cache", context]);
	await builder.sees(/^#\d+ [\d.]+ waits$/m);
	const env = { HOME: background.dir };
	const run = (args: readonly string[]): string =>
		tool(program, [args[0] ?? "", "--root", background.root, ...args.slice(1)], { env });
	assert.match(run(["du"]), /^\S+ +false +3\.\S*MB /m);
	const pruned = run(["prune", "--force", "--all"]);
	assert.match(pruned, /true \t+3\.\S*MB/);
	const snapshots = join(background.root, "snapshots");
	const gates = readdirSync(snapshots).map((id) => join(snapshots, id, "fs/closed"));
	rmSync(gates.find((path) => existsSync(path)) ?? assert.fail("the step waits at its gate"));
	const { code, stderr } = await builder.finished;
	assert.equal(code, 0, stderr);
	const before = usedBytes(background.root);
	assertClose(total(run(["prune", "--force"])), before - usedBytes(background.root), "prune");
});

test("a daemon keeps to its policy without being asked", async () => {
	await using daemons = new DaemonBench();
	const { root, dir, address } = daemons;
	for (const name of ["one", "two", "three"]) {
		const context = bench.context({ Dockerfile: "FROM scratch\nCOPY f /\n", f: randomBytes(15 << 20) });
		await bench.build(["--root", root, "-o", `type=oci,dest=${join(dir, name)}`, context]);
	}
	const config = join(dir, "buildkitd.toml");
	writeFileSync(config, '[[worker.oci.gcpolicy]]\nall = true\nmaxUsedSpace = "40MB"\n');
	assert.ok(usedBytes(root) > 80e6);
	await daemons.startDaemon({ flags: ["--config", config] });
	for (let waited = 0; usedBytesSoon(root) > 45e6; waited++) {
		assert.ok(waited < 200, `${usedBytes(root)} bytes are still used`);
		await sleep(100);
	}
	const shown = tool(program, ["du", "--builder", address]);
	assertClose(total(shown), usedBytes(root), shown);
	assert.ok(total(shown) > 20e6, "no more than the policy asks for is removed");
});
