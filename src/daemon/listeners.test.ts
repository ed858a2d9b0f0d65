import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { after, test } from "node:test";
import { connect as connectTls } from "node:tls";
import type { GrpcConfig } from "./config.ts";
import { type Listener, listen } from "./listeners.ts";
import { activatedSockets, requireActivated } from "./systemd.ts";

const directory = mkdtempSync(join(tmpdir(), "slipway-listen-"));
after(() => rmSync(directory, { recursive: true }));

interface Opened extends AsyncDisposable {
	readonly listeners: readonly Listener[];
	readonly warnings: readonly string[];
	readonly connections: number;
}

async function open(addresses: readonly string[], more: Partial<GrpcConfig> = {}): Promise<Opened> {
	const warnings: string[] = [];
	const accepted: Duplex[] = [];
	const listeners = await listen(
		{ addresses, allowPlainTcp: false, ...more },
		{
			env: {},
			onConnection: (connection) => {
				connection.on("error", () => {});
				accepted.push(connection);
				connection.write("hello");
			},
			warn: (message) => warnings.push(message),
		},
	);
	return {
		listeners,
		warnings,
		get connections() {
			return accepted.length;
		},
		async [Symbol.asyncDispose]() {
			for (const connection of accepted) {
				connection.destroy();
			}
			await Promise.all(listeners.map((listener) => listener[Symbol.asyncDispose]()));
		},
	};
}

function greeting(socket: Duplex): Promise<string> {
	return new Promise((resolve, reject) => {
		socket.once("data", (chunk) => {
			socket.destroy();
			resolve(String(chunk));
		});
		socket.once("error", reject);
		socket.once("close", () => reject(new Error("closed")));
	});
}

test("unix: mode and owner; a socket that nobody listens on is replaced, one in use is not; it goes at the end", async () => {
	const path = join(directory, "deep/er/s.sock");
	const address = `unix://${path}`;
	{
		await using opened = await open([address], { gid: 12 });
		const stat = statSync(path);
		assert.equal(stat.mode & 0o777, 0o660);
		assert.equal(stat.gid, 12);
		assert.equal(await greeting(connect(path)), "hello");
		assert.equal(opened.listeners[0]?.address, address);
		await assert.rejects(open([address]), {
			code: "failed-precondition",
			message: `another process listens on ${path}`,
		});
	}
	assert.equal(existsSync(path), false);
	// A daemon that was killed leaves its socket.
	const code = `require("node:net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 9))`;
	spawnSync(process.execPath, ["-e", code]);
	assert.equal(existsSync(path), true);
	await using _ = await open([address]);
});

test("addresses that can't be", async () => {
	const error = async (address: string, more: Partial<GrpcConfig> = {}): Promise<string> => {
		try {
			await using _ = await open([address], more);
		} catch (thrown) {
			return (thrown as Error).message;
		}
		return "";
	};
	assert.equal(await error("/run/x"), "address /run/x does not contain proto, you meant unix:///run/x ?");
	assert.equal(await error("npipe:////./pipe/x"), "addr npipe:////./pipe/x not supported");
	assert.equal(
		await error("fd://"),
		"no sockets found via socket activation: make sure the service was started by systemd",
	);
	assert.match(
		await error("tcp://0.0.0.0:0"),
		/^TLS is not enabled for tcp:\/\/0\.0\.0\.0:0\. enabling mutual TLS authentication is highly recommended/,
	);
	assert.equal(await error("tcp://0.0.0.0:0", { allowPlainTcp: true }), "");
	assert.match(await error("tcp://localhost"), /must be tcp:\/\/<host>:<port>/);
	assert.match(await error("unix:///proc/nowhere/s"), /cannot be made/);
	assert.match(
		await error("tcp://127.0.0.1:0", { tls: { cert: "/none", key: "/none" } }),
		/could not read certificate/,
	);
});

test("one address that can't be listened at closes the others", async () => {
	const path = join(directory, "first.sock");
	await assert.rejects(open([`unix://${path}`, "nonsense"]));
	assert.equal(existsSync(path), false);
});

test("tcp with mutual TLS: a client needs a certificate of the authority", async () => {
	const file = (name: string): string => join(directory, name);
	const openssl = (...args: string[]): unknown => execFileSync("openssl", args, { stdio: "pipe" });
	for (const name of ["ca", "other"]) {
		openssl(
			"req",
			"-x509",
			"-newkey",
			"ec",
			"-pkeyopt",
			"ec_paramgen_curve:prime256v1",
			"-nodes",
			"-days",
			"1",
			"-subj",
			`/CN=${name}`,
			"-keyout",
			file(`${name}.key`),
			"-out",
			file(`${name}.pem`),
		);
	}
	writeFileSync(file("ext"), "subjectAltName=IP:127.0.0.1");
	const sign = (name: string, authority: string): void => {
		openssl(
			"req",
			"-newkey",
			"ec",
			"-pkeyopt",
			"ec_paramgen_curve:prime256v1",
			"-nodes",
			"-subj",
			`/CN=${name}`,
			"-keyout",
			file(`${name}.key`),
			"-out",
			file(`${name}.csr`),
		);
		openssl(
			"x509",
			"-req",
			"-in",
			file(`${name}.csr`),
			"-CA",
			file(`${authority}.pem`),
			"-CAkey",
			file(`${authority}.key`),
			"-CAcreateserial",
			"-days",
			"1",
			"-extfile",
			file("ext"),
			"-out",
			file(`${name}.pem`),
		);
	};
	sign("server", "ca");
	sign("client", "ca");
	sign("stranger", "other");
	await using opened = await open(["tcp://127.0.0.1:0"], {
		tls: { cert: file("server.pem"), key: file("server.key"), ca: file("ca.pem") },
	});
	const port = Number(/:(\d+)$/.exec(opened.listeners[0]?.address ?? "")?.[1]);
	const attempt = (name?: string): Promise<string> =>
		greeting(
			connectTls({
				host: "127.0.0.1",
				port,
				ca: readFileSync(file("ca.pem")),
				ALPNProtocols: ["h2"],
				...(name === undefined
					? {}
					: { cert: readFileSync(file(`${name}.pem`)), key: readFileSync(file(`${name}.key`)) }),
			}),
		);
	assert.equal(await attempt("client"), "hello");
	await assert.rejects(attempt());
	await assert.rejects(attempt("stranger"));
	assert.equal(opened.connections, 1);
	assert.deepEqual(
		opened.warnings.filter((warning) => !warning.includes("refused")),
		[],
	);
});

test("sockets of systemd are those for this process", () => {
	assert.deepEqual(activatedSockets({ LISTEN_FDS: "2", LISTEN_PID: String(process.pid) }), [3, 4]);
	assert.deepEqual(activatedSockets({ LISTEN_FDS: "2", LISTEN_PID: "1" }), []);
	assert.deepEqual(activatedSockets({}), []);
});

test("sockets of systemd can be chosen by number and by name", () => {
	const env = { LISTEN_FDS: "3", LISTEN_PID: String(process.pid), LISTEN_FDNAMES: "api:debug:api" };
	const cases: readonly (readonly [address: string, fds: readonly number[]])[] = [
		["fd://", [3, 4, 5]],
		["fd://*", [3, 4, 5]],
		["fd://4", [4]],
		["fd://api", [3, 5]],
		["fd://debug", [4]],
	];
	for (const [address, fds] of cases) {
		assert.deepEqual(requireActivated(address, env), fds, address);
	}
	for (const wrong of ["fd://6", "fd://other", "fd://3.0"]) {
		assert.throws(() => requireActivated(wrong, env), {
			code: "not-found",
			message: `address ${wrong}: systemd opened no such socket, only 3 (api), 4 (debug), 5 (api)`,
		});
	}
	assert.throws(() => requireActivated("fd://api", {}), /no sockets found via socket activation/);
});
