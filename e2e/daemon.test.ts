import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer, type Server } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { emptyBuildHistoryRequest } from "../src/api/generated/control.ts";
import { control } from "../src/api/services/control.ts";
import { startRealRegistry } from "../src/registry/real-registry.ts";
import { DaemonBench, type RunningDaemon, requireClients } from "./support/daemon.ts";
import { busyboxLayout, projectRoot } from "./support/slipway.ts";
import { tool } from "./support/tools.ts";

const base = ["--build-context", `base=oci-layout://${busyboxLayout}:latest`];

before(requireClients);

describe("docker buildx with the remote driver", () => {
	const bench = new DaemonBench();
	let daemon: RunningDaemon;
	const buildx = ["docker-buildx", "--builder", "slip"];
	after(() => bench[Symbol.asyncDispose]());
	before(async () => {
		daemon = await bench.startDaemon();
		await bench.client(["docker-buildx", "create", "--name", "slip", "--driver", "remote", bench.address]);
	});

	test("inspect shows the worker", async () => {
		const { stdout } = await bench.client([...buildx, "inspect"]);
		assert.match(stdout.toString(), /^Status: +running$/m);
		assert.match(stdout.toString(), /^Platforms: +linux\//m);
		assert.match(stdout.toString(), /org\.mobyproject\.buildkit\.worker\.executor: +oci/);
	});

	test("build: the context is sent, steps run, the result comes back, and the next build is cached", async () => {
		const context = bench.context({
			Dockerfile:
				"FROM base\nARG WHO\nRUN echo hello $WHO | tee /greeting\nCOPY --chmod=600 a /dir/\nRUN --mount=type=secret,id=s cp /run/secrets/s /secret\n",
			a: "content of a",
			s: "a secret",
		});
		const out = join(bench.dir, "out");
		const args = [...buildx, "build", "--progress", "plain", ...base, "--build-arg", "WHO=you"];
		const secret = ["--secret", `id=s,src=${join(context, "s")}`];
		const metadata = join(bench.dir, "metadata.json");
		const first = await bench.client([...args, ...secret, "-o", `type=local,dest=${out}`, context]);
		assert.match(first.stderr, /^#\d+ [\d.]+ hello you$/m);
		assert.equal(readFileSync(join(out, "greeting"), "utf8"), "hello you\n");
		assert.equal(readFileSync(join(out, "dir/a"), "utf8"), "content of a");
		assert.equal(readFileSync(join(out, "secret"), "utf8"), "a secret");
		const tar = join(bench.dir, "image.tar");
		const again = await bench.client([
			...args,
			...secret,
			"--metadata-file",
			metadata,
			"-o",
			`type=oci,dest=${tar}`,
			context,
		]);
		assert.equal(again.stderr.match(/^#\d+ CACHED$/gm)?.length, 3);
		assert.match(
			JSON.parse(readFileSync(metadata, "utf8"))["containerimage.digest"],
			/^sha256:[0-9a-f]{64}$/,
		);
		assert.ok(existsSync(tar));
	});

	test("a step that fails is shown with its line and its output", async () => {
		const context = bench.context({ Dockerfile: "FROM base\nRUN echo before; exit 3\n" });
		const { code, stderr } = await bench.tryClient([
			...buildx,
			"build",
			"--progress",
			"plain",
			...base,
			context,
		]).finished;
		assert.equal(code, 1);
		assert.match(stderr, /^Dockerfile:2$/m);
		assert.match(stderr, /^ +2 \| >>> RUN echo before; exit 3$/m);
		assert.match(
			stderr,
			/ERROR: failed to build: failed to solve: process "\/bin\/sh -c echo before; exit 3" did not complete successfully: exit code: 3/,
		);
	});

	test("the history has builds with their logs and errors; du, prune", async () => {
		const listed = (await bench.client([...buildx, "history", "ls", "--format", "json"])).stdout.toString();
		const builds = listed
			.trim()
			.split("\n")
			.map((line) => JSON.parse(line) as { readonly ref: string; readonly status: string });
		assert.deepEqual(builds.map(({ status }) => status).sort(), ["Completed", "Completed", "Error"]);
		const failed =
			builds
				.find(({ status }) => status === "Error")
				?.ref.split("/")
				.at(-1) ?? "";
		const logs = await bench.client([...buildx, "history", "logs", failed]);
		assert.match(logs.stderr + logs.stdout, /before/);
		const shown = await bench.client([...buildx, "history", "inspect", failed]);
		assert.match(shown.stdout.toString(), /exit code: 3/);
		await bench.client([...buildx, "history", "rm", failed]);
		const du = await bench.client([...buildx, "du"]);
		assert.match(du.stdout.toString(), /^Reclaimable:\s+[1-9]/m);
		await bench.client([...buildx, "prune", "--all", "--force"]);
		const empty = await bench.client([...buildx, "du"]);
		assert.match(empty.stdout.toString(), /^Reclaimable:\s+0B$/m);
	});

	test("bake builds several targets at once", async () => {
		const context = bench.context({
			Dockerfile: "FROM base\nARG N\nRUN echo $N > /n\n",
			"docker-bake.json": JSON.stringify({
				group: { default: { targets: ["one", "two"] } },
				target: Object.fromEntries(
					["one", "two"].map((name) => [
						name,
						{
							contexts: { base: `oci-layout://${busyboxLayout}:latest` },
							args: { N: name },
							output: [`type=local,dest=out-${name}`],
						},
					]),
				),
			}),
		});
		await bench.client([...buildx, "bake", "--progress", "plain", "--allow", "fs=*"], { cwd: context });
		assert.equal(readFileSync(join(context, "out-one/n"), "utf8"), "one\n");
		assert.equal(readFileSync(join(context, "out-two/n"), "utf8"), "two\n");
	});

	test("docker compose builds and pushes", async () => {
		await using registry = await startRealRegistry();
		const image = `${registry.host}/web:1`;
		const context = bench.context({
			"compose.yaml": JSON.stringify({
				services: {
					web: {
						image,
						build: {
							context: "web",
							additional_contexts: { base: `oci-layout://${busyboxLayout}:latest` },
						},
					},
				},
			}),
			"web/Dockerfile": "FROM base\nRUN echo web > /web\n",
		});
		const built = await bench.client(
			["docker-compose", "--progress", "plain", "build", "--builder", "slip", "--push"],
			{ cwd: context },
		);
		assert.match(built.stderr + built.stdout, /pushing manifest for/);
		const tags = await fetch(`http://${registry.host}/v2/web/tags/list`);
		assert.deepEqual(await tags.json(), { name: "web", tags: ["1"] });
	});

	test("16 builds at once, some the same", async () => {
		const contexts = Array.from({ length: 8 }, (_, index) =>
			bench.context({ Dockerfile: `FROM base\nRUN echo ${index} > /index\n` }),
		);
		const builds = [...contexts, ...contexts].map((context) =>
			bench.client([...buildx, "build", "--progress", "plain", ...base, context]),
		);
		await Promise.all(builds);
	});

	test("a client that vanishes ends its build", async () => {
		const context = bench.context({ Dockerfile: "FROM base\nRUN echo started; sleep 3600\n" });
		await using channel = await bench.channel();
		const events = channel.stream(control.listenBuildHistory, { signal: new AbortController().signal });
		await events.send({ ...emptyBuildHistoryRequest(), ActiveOnly: true });
		const build = bench.tryClient([...buildx, "build", "--progress", "plain", ...base, context]);
		await build.says(/started/);
		build.child.kill("SIGKILL");
		await build.finished;
		for await (const { record } of events) {
			// The client asks something short before its build, which may end behind our back.
			if (record?.CompletedAt !== undefined && record.error !== undefined) {
				assert.equal(record.error.message, "context canceled");
				return;
			}
		}
	});

	test("SIGTERM lets a build end, and ends with exit code 0", async () => {
		const context = bench.context({ Dockerfile: "FROM base\nRUN echo started; sleep 1; echo ended > /x\n" });
		const out = join(bench.dir, "late");
		const build = bench.tryClient([
			...buildx,
			"build",
			"--progress",
			"plain",
			...base,
			"-o",
			`type=local,dest=${out}`,
			context,
		]);
		await build.says(/started/);
		daemon.child.kill("SIGTERM");
		assert.equal((await build.finished).code, 0);
		assert.equal(readFileSync(join(out, "x"), "utf8"), "ended\n");
		assert.equal((await daemon.finished).code, 0);
		assert.equal(existsSync(bench.socket), false);
	});
});

describe("the daemon's life", () => {
	test("a second daemon on the same state directory is refused; the socket of a killed one is taken over", async () => {
		await using bench = new DaemonBench();
		const first = await bench.startDaemon();
		await assert.rejects(
			bench.startDaemon({ command: [join(projectRoot, "bin/slipwayd"), "--addr", "tcp://127.0.0.1:0"] }),
			/state directory .* is in use by another builder/,
		);
		await assert.rejects(bench.startDaemon({ root: join(bench.dir, "other") }), /another process listens on/);
		first.child.kill("SIGKILL");
		await first.finished;
		await bench.startDaemon();
	});

	test("sockets that a service manager opened", async () => {
		await using bench = new DaemonBench();
		const listening = await new Promise<Server>((resolve) => {
			const server = createServer().listen(0, "127.0.0.1", () => resolve(server));
		});
		const { port } = listening.address() as AddressInfo;
		const { fd } = (listening as unknown as { readonly _handle: { readonly fd: number } })._handle;
		await bench.startDaemon({
			command: [
				"sh",
				"-c",
				'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" --addr fd:// "$@"',
				join(projectRoot, "bin/slipwayd"),
			],
			files: [fd],
		});
		// The daemon has the socket now; nobody else answers.
		listening.close();
		const address = `tcp://127.0.0.1:${port}`;
		await bench.client(["docker-buildx", "create", "--name", "activated", "--driver", "remote", address]);
		const { stdout } = await bench.client(["docker-buildx", "inspect", "activated"]);
		assert.match(stdout.toString(), /^Status: +running$/m);
	});

	test("docker buildx reaches it over TCP with mutual TLS, and not without a certificate", async () => {
		await using bench = new DaemonBench();
		const file = (name: string): string => join(bench.dir, name);
		const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
		tool("openssl", [
			"req",
			"-x509",
			...key,
			"-days",
			"1",
			"-subj",
			"/CN=ca",
			"-keyout",
			file("ca.key"),
			"-out",
			file("ca.pem"),
		]);
		writeFileSync(file("names"), "subjectAltName=IP:127.0.0.1");
		for (const name of ["server", "client"]) {
			tool("openssl", [
				"req",
				...key,
				"-subj",
				`/CN=${name}`,
				"-keyout",
				file(`${name}.key`),
				"-out",
				file(`${name}.csr`),
			]);
			const authority = ["-CA", file("ca.pem"), "-CAkey", file("ca.key"), "-CAcreateserial"];
			tool("openssl", [
				"x509",
				"-req",
				"-in",
				file(`${name}.csr`),
				...authority,
				"-days",
				"1",
				"-extfile",
				file("names"),
				"-out",
				file(`${name}.pem`),
			]);
		}
		const daemon = await bench.startDaemon({
			command: [join(projectRoot, "bin/slipwayd"), "--addr", "tcp://127.0.0.1:0"],
			flags: ["--tlscert", file("server.pem"), "--tlskey", file("server.key"), "--tlscacert", file("ca.pem")],
		});
		const [, port] = /tcp:\/\/127\.0\.0\.1:(\d+)/.exec(daemon.said()) ?? [];
		const create = (name: string, options: string): Promise<unknown> =>
			bench.client([
				"docker-buildx",
				"create",
				"--name",
				name,
				"--driver",
				"remote",
				"--driver-opt",
				options,
				`tcp://127.0.0.1:${port}`,
			]);
		const authority = `servername=127.0.0.1,cacert=${file("ca.pem")}`;
		await create("known", `${authority},cert=${file("client.pem")},key=${file("client.key")}`);
		const { stdout } = await bench.client(["docker-buildx", "inspect", "known"]);
		assert.match(stdout.toString(), /^Status: +running$/m);
		await create("unknown", authority);
		const refused = await bench.client(["docker-buildx", "inspect", "unknown"]);
		assert.doesNotMatch(refused.stdout.toString(), /^Status: +running$/m);
	});

	test("a daemon that nobody needs ends when it was told to", async () => {
		await using bench = new DaemonBench();
		const daemon = await bench.startDaemon({ flags: ["--idle-exit", "300ms"] });
		await bench.client(["docker-buildx", "create", "--name", "idle", "--driver", "remote", bench.address]);
		assert.equal((await daemon.finished).code, 0);
		assert.equal(existsSync(bench.socket), false);
	});

	test("bad flags and settings are refused with their name", async () => {
		await using bench = new DaemonBench();
		const config = join(
			bench.context({ "buildkitd.toml": "[worker.oci]\nsnapshoter = 1\n" }),
			"buildkitd.toml",
		);
		await assert.rejects(
			bench.startDaemon({ flags: ["--config", config] }),
			/worker\.oci\.snapshoter is not a known setting/,
		);
		await assert.rejects(
			bench.startDaemon({ flags: ["--rootless"] }),
			/rootless mode requires to be executed as the mapped root in a user namespace/,
		);
		await assert.rejects(
			bench.startDaemon({ flags: ["--allow-insecure-entitlement", "x"] }),
			/invalid entitlement : x/,
		);
	});
});
