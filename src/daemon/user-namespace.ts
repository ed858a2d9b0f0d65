import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from "node:child_process";
import { readFileSync, readlinkSync } from "node:fs";
import { userInfo } from "node:os";
import { SlipwayError, wrap } from "../errors/errors.ts";
import { findProgram } from "../sys/find-program.ts";
import { ownUid } from "./default-root.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** Which ids a user may have in a namespace of his own. */
export type IdPlan =
	/** The user as root, and his subordinate ids from 1 on. */
	| { readonly kind: "many"; readonly uids: readonly IdRange[]; readonly gids: readonly IdRange[] }
	/** The user as root and nobody else: all files belong to him. `why` says what is missing for more. */
	| { readonly kind: "single"; readonly why: string };

/** As newuidmap(1) takes them. */
export interface IdRange {
	readonly inside: number;
	readonly outside: number;
	readonly count: number;
}

/** What `/etc/subuid`, `/etc/subgid` and the machine's programs allow this user. */
export function planIds(env: Env): IdPlan {
	const { uid, gid, username } = userInfo();
	const missing = ["newuidmap", "newgidmap"].filter(
		(name) => findProgram(name, env["PATH"] ?? "") === undefined,
	);
	if (missing.length > 0) {
		return {
			kind: "single",
			why: `${missing.join(" and ")} not found: install them (on Debian: apt-get install uidmap)`,
		};
	}
	const uids = subordinateIds("/etc/subuid", [username, String(uid)]);
	const gids = subordinateIds("/etc/subgid", [username, String(uid)]);
	const empty = [
		...(uids.length === 0 ? ["/etc/subuid"] : []),
		...(gids.length === 0 ? ["/etc/subgid"] : []),
	];
	if (empty.length > 0) {
		return {
			kind: "single",
			why: `user ${username} has no ids in ${empty.join(" and ")}: root can add some with usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${username}`,
		};
	}
	return {
		kind: "many",
		uids: [{ inside: 0, outside: uid, count: 1 }, ...uids],
		gids: [{ inside: 0, outside: gid, count: 1 }, ...gids],
	};
}

/** Lines `owner:first:count`, subuid(5). */
function subordinateIds(file: string, owners: readonly string[]): readonly IdRange[] {
	let text: string;
	try {
		text = readFileSync(file, "utf8");
	} catch {
		return [];
	}
	const ranges: IdRange[] = [];
	let inside = 1;
	for (const line of text.split("\n")) {
		const [owner = "", first, count] = line.trim().split(":");
		const range = { inside, outside: Number(first), count: Number(count) };
		if (owners.includes(owner) && Number.isInteger(range.outside) && range.count > 0) {
			ranges.push(range);
			inside += range.count;
		}
	}
	return ranges;
}

/**
 * Starts a program as root of a user namespace with a mount namespace, in which this user may mount, change owners and run containers.
 * Mounts that the machine makes later are seen inside. `SLIPWAY_OUTER_UID` tells the program who it is outside, `SLIPWAY_SINGLE_ID`
 * why it has only one id.
 * Throws `permission-denied` if the machine does not allow that.
 */
export async function spawnInUserNamespace(
	argv: readonly [string, ...string[]],
	options: SpawnOptions & { readonly env: NodeJS.ProcessEnv },
): Promise<ChildProcess> {
	const plan = planIds(options.env);
	const env = { ...options.env, SLIPWAY_OUTER_UID: String(ownUid(options.env)) };
	const namespaces = ["--user", "--mount", "--propagation", "slave"];
	if (plan.kind === "single") {
		const single = { ...options, env: { ...env, SLIPWAY_SINGLE_ID: plan.why } };
		return await started(spawn("unshare", ["--map-root-user", ...namespaces, "--", ...argv], single));
	}
	const stdio = options.stdio === "inherit" ? ["inherit", "inherit", "inherit"] : (options.stdio as string[]);
	// It waits until the ids are there; who has none cannot even read his own files.
	const wait = 'read -r go <&3 || exit 125; exec 3<&-; exec "$@"';
	const child = await started(
		spawn("unshare", [...namespaces, "--", "sh", "-c", wait, "sh", ...argv], {
			...options,
			env,
			stdio: [...stdio, "pipe"] as NonNullable<SpawnOptions["stdio"]> & string[],
		}),
	);
	const gate = child.stdio[3] as NodeJS.WritableStream;
	try {
		await enteredNamespace(child);
		map("newuidmap", child, plan.uids);
		map("newgidmap", child, plan.gids);
		gate.write("\n");
	} catch (thrown) {
		child.kill("SIGKILL");
		throw thrown;
	} finally {
		gate.end();
	}
	return child;
}

function started(child: ChildProcess): Promise<ChildProcess> {
	return new Promise((settle, fail) => {
		child.once("spawn", () => settle(child));
		child.once("error", (thrown) =>
			fail(
				wrap(thrown, "building without root needs unshare (on Debian: apt-get install util-linux)", {
					code: "failed-precondition",
				}),
			),
		);
	});
}

async function enteredNamespace(child: ChildProcess): Promise<void> {
	const own = readlinkSync("/proc/self/ns/user");
	const theirs = (): string | undefined => {
		try {
			return readlinkSync(`/proc/${child.pid}/ns/user`);
		} catch {
			return undefined;
		}
	};
	for (;;) {
		const namespace = theirs();
		if (child.exitCode !== null || child.signalCode !== null || namespace === undefined) {
			throw new SlipwayError(
				"permission-denied",
				"this machine does not let users make user namespaces, which building without root needs: see 'slipway doctor', or build as root",
			);
		}
		if (namespace !== own) {
			return;
		}
		await new Promise((wake) => setTimeout(wake, 1));
	}
}

function map(program: string, child: ChildProcess, ranges: readonly IdRange[]): void {
	const numbers = ranges.flatMap(({ inside, outside, count }) => [inside, outside, count].map(String));
	const { status, stderr, error } = spawnSync(program, [String(child.pid), ...numbers], { encoding: "utf8" });
	if (status !== 0) {
		throw new SlipwayError(
			"failed-precondition",
			`${program} failed: ${(stderr || error?.message || `exit code ${status}`).trim()}; see 'slipway doctor'`,
		);
	}
}

/** Runs a program there with this process's terminal, and gives its exit code. The terminal's signals reach it too. */
export async function runInUserNamespace(
	argv: readonly [string, ...string[]],
	env: NodeJS.ProcessEnv,
): Promise<number> {
	const child = await spawnInUserNamespace(argv, { stdio: "inherit", env });
	const pass = (signal: NodeJS.Signals): void => void child.kill(signal);
	// Ctrl-C reaches all processes of the terminal by itself.
	const ignore = (): void => {};
	process.on("SIGINT", ignore);
	process.on("SIGTERM", pass);
	process.on("SIGHUP", pass);
	return await new Promise((settle) => {
		child.once("exit", (code) => {
			process.off("SIGINT", ignore);
			process.off("SIGTERM", pass);
			process.off("SIGHUP", pass);
			settle(code ?? 137);
		});
	});
}
