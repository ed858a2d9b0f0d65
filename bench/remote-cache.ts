/** A fresh builder that builds a project of ten steps with everything in a registry's cache, against the real BuildKit. */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { startRealRegistry } from "../src/registry/real-registry.ts";

const root = resolve(import.meta.dirname, "..");
const program = join(root, "bin/slipway");

export interface RemoteCacheOptions {
	/** OCI layout of the base image, tag `latest`. */
	readonly base: string;
	readonly work: string;
	readonly runs: number;
	/** At most this much of BuildKit's time. */
	readonly target: number;
}

/** Gives the number of goals that were missed. Without BuildKit only our own times are shown. */
export async function measureRemoteCache({ base, work, runs, target }: RemoteCacheOptions): Promise<number> {
	const registry = await startRealRegistry();
	const context = project(join(work, "ten-steps"));
	const ref = `type=registry,ref=${registry.host}/ten:1`;
	const state = join(work, "remote-cache");
	const slipway = (args: readonly string[]): number =>
		timed(program, [
			"build",
			"--root",
			state,
			"--progress",
			"quiet",
			"--build-context",
			`base=oci-layout://${base}:latest`,
			...args,
		]);
	const forget = (): void => {
		spawnSync(program, ["stop", "--root", state]);
		rmSync(state, { recursive: true, force: true });
	};
	const peer = buildkit(base, context);
	let missed = 0;
	try {
		slipway(["--cache-to", `${ref},mode=max`, context]);
		for (const output of [false, true]) {
			const mine: number[] = [];
			const theirs: number[] = [];
			for (let run = 0; run <= runs; run++) {
				forget();
				// The builder runs, as the peer's daemon does, but has never built anything of this.
				slipway([empty(join(work, "empty"))]);
				const dest = join(work, "ten.tar");
				const seconds = slipway([
					"--cache-from",
					ref,
					...(output ? ["-o", `type=oci,dest=${dest}`] : []),
					context,
				]);
				const peerSeconds = peer?.(ref, output ? dest : undefined);
				rmSync(dest, { force: true });
				if (run > 0) {
					mine.push(seconds);
					theirs.push(peerSeconds ?? Number.NaN);
				}
			}
			const [own, other] = [median(mine), median(theirs)];
			missed += own / other > target ? 1 : 0;
			const what = `ten steps in a fresh builder, all in a registry's cache${output ? ", exported as OCI tar" : ""}`;
			console.log(
				`| ${what} | ${own.toFixed(3)} | ${other.toFixed(3)} | ${(own / other).toFixed(2)} | ${target} |`,
			);
		}
	} finally {
		forget();
		await registry[Symbol.asyncDispose]();
	}
	return missed;
}

/** Each second step makes a layer of some megabytes. */
function project(dir: string): string {
	mkdirSync(dir, { recursive: true });
	const steps = Array.from({ length: 5 }, (_, index) => {
		writeFileSync(join(dir, `source${index}.txt`), `source ${index} `.repeat(10_000));
		return `COPY source${index}.txt /src/\nRUN head -c 4194304 /dev/urandom > /made${index} && cat /src/source${index}.txt >> /made${index}`;
	});
	writeFileSync(join(dir, "Dockerfile"), `FROM base\n${steps.join("\n")}\n`);
	return dir;
}

function empty(dir: string): string {
	mkdirSync(dir, { recursive: true });
	writeFileSync(join(dir, "Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n");
	return dir;
}

/** Undefined if no `buildctl` is on the path, or `BUILDKIT_HOST` names no daemon. */
function buildkit(
	base: string,
	context: string,
): ((ref: string, dest: string | undefined) => number) | undefined {
	if (
		process.env["BUILDKIT_HOST"] === undefined ||
		spawnSync("buildctl", ["debug", "workers"], { stdio: "ignore" }).status !== 0
	) {
		return undefined;
	}
	const digest: string = JSON.parse(readFileSync(join(base, "index.json"), "utf8")).manifests[0].digest;
	return (ref, dest) => {
		spawnSync("buildctl", ["prune", "--all"], { stdio: "ignore" });
		const files = ["--local", `context=${context}`, "--local", `dockerfile=${context}`];
		const layout = ["--oci-layout", `base=${base}`, "--opt", `context:base=oci-layout://base@${digest}`];
		const output = dest === undefined ? [] : ["--output", `type=oci,dest=${dest}`];
		const from = ["--import-cache", `${ref},registry.insecure=true`];
		const frontend = ["--progress", "quiet", "--frontend", "dockerfile.v0"];
		return timed("buildctl", ["build", ...frontend, ...files, ...layout, ...from, ...output]);
	};
}

function timed(command: string, args: readonly string[]): number {
	const start = process.hrtime.bigint();
	const { status, stderr } = spawnSync(command, args, {
		encoding: "utf8",
		env: { ...process.env, NODE_EXTRA_CA_CERTS: "" },
	});
	if (status !== 0) {
		throw new Error(`${command} ${args.join(" ")}\n${stderr}`);
	}
	return Number(process.hrtime.bigint() - start) / 1e9;
}

function median(values: readonly number[]): number {
	return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
