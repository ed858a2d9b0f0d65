import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { parseConfig } from "./config-file.ts";
import { diskSpaceBytes, parseDiskSpace, parseDurationMs } from "./config-values.ts";
import { gcPolicy } from "./gc-policy.ts";
import { createLogger } from "./logger.ts";
import { mergeConfig } from "./merge-config.ts";

const directory = mkdtempSync(join(tmpdir(), "slipway-config-"));
after(() => rmSync(directory, { recursive: true }));
const noFlags = { allowPlainTcp: false };

test("every setting of buildkitd.toml that a worker has", () => {
	const ca = join(directory, "ca.pem");
	writeFileSync(ca, "PEM");
	writeFileSync(join(directory, "x.cert"), "CERT");
	writeFileSync(join(directory, "x.key"), "KEY");
	writeFileSync(join(directory, "y.crt"), "OTHER");
	const file = parseConfig(
		`
root = "/state"
insecure-entitlements = ["network.host"]
debug = true
[log]
format = "json"
[grpc]
address = ["tcp://127.0.0.1:1234"]
uid = 7
gid = 8
[grpc.tls]
cert = "c"
key = "k"
ca = "a"
[dns]
nameservers = ["1.1.1.1"]
options = ["edns0"]
searchDomains = ["example.com"]
[history]
maxAge = 172800
maxEntries = 20
[system]
platformsCacheMaxAge = "30m"
maxRegistryConcurrency = 6
[frontend."gateway.v0"]
allowedRepositories = ["docker/dockerfile"]
[cdi]
specDirs = ["/cdi"]
autoAllowed = ["vendor.com/x"]
[worker.containerd]
enabled = false
namespace = "x"
[worker.oci]
max-parallelism = 3
snapshotter = "native"
platforms = ["linux/arm64"]
binary = "runc"
networkMode = "host"
cniPoolSize = 4
defaultCgroupParent = "/builds"
gc = true
[worker.oci.labels]
"com.example" = "yes"
[[worker.oci.gcpolicy]]
keepBytes = "512MB"
keepDuration = "48h"
filters = ["type==source.local"]
[[worker.oci.gcpolicy]]
all = true
reservedSpace = 1000000
maxUsedSpace = "10%"
[registry."docker.io"]
mirrors = ["mirror.example/path"]
ca = ["${ca}"]
tlsconfigdir = ["${directory}"]
[registry."plain.example:5000"]
http = true
insecure = true
`,
		"test.toml",
	);
	const config = mergeConfig(file, noFlags, "/default");
	assert.equal(config.root, "/state");
	assert.deepEqual(config.entitlements, ["network.host", "device"]);
	assert.deepEqual(config.devices, { directories: ["/cdi"], autoAllowed: ["vendor.com/x"] });
	assert.deepEqual(config.log, { format: "json", level: "debug" });
	assert.deepEqual(config.grpc, {
		addresses: ["tcp://127.0.0.1:1234"],
		allowPlainTcp: false,
		uid: 7,
		gid: 8,
		tls: { cert: "c", key: "k", ca: "a" },
	});
	assert.deepEqual(config.history, { maxAgeMs: 172_800_000, maxEntries: 20 });
	assert.equal(config.platformsMaxAgeMs, 1_800_000);
	assert.equal(config.maxRegistryConcurrency, 6);
	assert.deepEqual(config.frontends, {
		dockerfile: true,
		gateway: true,
		gatewayRepositories: ["docker/dockerfile"],
	});
	assert.deepEqual(config.registries, {
		"docker.io": {
			mirrors: ["mirror.example/path"],
			ca: ["PEM", "OTHER"],
			keyPairs: [{ certificate: "CERT", key: "KEY" }],
		},
		"plain.example:5000": { http: true, insecure: true },
	});
	const { worker } = config;
	assert.deepEqual(worker.labels, { "com.example": "yes" });
	assert.equal(worker.maxParallelism, 3);
	assert.deepEqual(worker.network, { mode: "host", poolSize: 4 });
	assert.equal(worker.cgroupParent, "/builds");
	assert.deepEqual(worker.gcPolicy[0], {
		all: false,
		filters: ["type==source.local"],
		keepDurationMs: 172_800_000,
		reservedBytes: 512 * 2 ** 20,
		maxUsedBytes: 0,
		minFreeBytes: 0,
	});
	assert.equal(worker.gcPolicy[1]?.reservedBytes, 1_000_000);
	assert.equal((worker.gcPolicy[1]?.maxUsedBytes ?? 0) % 1e9, 0);
});

test("flags win over the file", () => {
	const file = parseConfig('root = "/state"\n[worker.oci.labels]\na = "1"', "test.toml");
	const config = mergeConfig(
		file,
		{
			...noFlags,
			root: "/other",
			addresses: ["unix:///x"],
			labels: ["a=2", "b=3=4"],
			logLevel: "warn",
			gc: false,
		},
		"/default",
	);
	assert.equal(config.root, "/other");
	assert.deepEqual(config.grpc.addresses, ["unix:///x"]);
	assert.deepEqual(config.worker.labels, { a: "2", b: "3=4" });
	assert.equal(config.log.level, "warning");
	assert.deepEqual(config.worker.gcPolicy, []);
	assert.deepEqual(config.devices, { autoAllowed: [] });
	const without = mergeConfig(file, { ...noFlags, devicesDisabled: true }, "/default");
	assert.deepEqual([without.devices.directories, without.entitlements], [[], []]);
});

test("what is wrong in a configuration is told with its key", () => {
	const error = (text: string): string => {
		try {
			mergeConfig(parseConfig(text, "t.toml"), noFlags, "/r");
		} catch (thrown) {
			return (thrown as Error).message;
		}
		return "";
	};
	assert.equal(error("x = 1"), "t.toml: x is not a known setting");
	assert.equal(error("[worker.oci]\nlabel = 1"), "t.toml: worker.oci.label is not a known setting");
	assert.equal(error('[grpc]\naddress = "x"'), "t.toml: grpc.address must be a list of strings");
	assert.equal(
		error("[worker.oci]\nselinux = true"),
		"t.toml: worker.oci.selinux is not supported: steps run without SELinux labels",
	);
	assert.equal(error("[worker.oci]\nselinux = false"), "");
	assert.equal(
		error("[worker.containerd]\nenabled = true"),
		"t.toml: worker.containerd.enabled is not supported: this builder runs containers itself",
	);
	assert.equal(
		error('[[worker.oci.gcpolicy]]\nkeepDuration = "x"'),
		"t.toml: worker.oci.gcpolicy[0].keepDuration: invalid duration x",
	);
	assert.equal(error("[registry.a]\nhttp = 1"), "t.toml: registry.a.http must be true or false");
	assert.match(
		error('[registry.a]\nca = ["/none"]'),
		/^t.toml: registry.a.ca names a file that can't be read/,
	);
	assert.match(error("x = "), /^failed to parse config t.toml: /);
	assert.equal(error('insecure-entitlements = ["x"]'), "invalid entitlement : x");
	assert.equal(error('[log]\nformat = "x"'), 'unsupported log type "x"');
	assert.equal(error('[grpc.tls]\ncert = "c"'), "you must specify key and cert file if one is specified");
});

test("amounts of disk and durations", () => {
	const bytes = (text: string): number => diskSpaceBytes(parseDiskSpace(text), 100 * 2 ** 30);
	assert.equal(bytes("1000"), 1000);
	assert.equal(bytes("1.5g"), 1.5 * 2 ** 30);
	assert.equal(bytes("10 KiB"), 10_240);
	assert.equal(bytes("10%"), 11e9);
	assert.equal(bytes("0%"), 0);
	assert.throws(() => parseDiskSpace("much"), { message: "invalid disk space much" });
	assert.equal(parseDurationMs("90"), 90_000);
	assert.equal(parseDurationMs("1h30m"), 5_400_000);
});

test("gcPolicy: BuildKit's default rules for a disk of 200 GiB", () => {
	const rules = gcPolicy({}, 200 * 2 ** 30);
	assert.deepEqual(
		rules.map((rule) => [
			rule.all,
			rule.keepDurationMs / 3_600_000,
			rule.reservedBytes,
			rule.maxUsedBytes,
			rule.minFreeBytes,
		]),
		[
			[false, 48, 0, 512e6, 0],
			[false, 1440, 10e9, 100e9, 41e9],
			[false, 0, 10e9, 100e9, 41e9],
			[true, 0, 10e9, 100e9, 41e9],
		],
	);
});

test("createLogger: text and JSON, from the level on", () => {
	const lines: string[] = [];
	const now = (): Date => new Date("2026-01-02T03:04:05.678Z");
	const text = createLogger({ format: "text", level: "info" }, (line) => lines.push(line), now);
	text.log("debug", "no");
	text.log("warning", "it is so", { path: "/a/b", n: 1 });
	createLogger({ format: "json", level: "debug" }, (line) => lines.push(line), now).log("debug", "x", {
		code: "y",
	});
	assert.deepEqual(lines, [
		'time="2026-01-02T03:04:05Z" level=warning msg="it is so" n=1 path=/a/b\n',
		'{"code":"y","level":"debug","msg":"x","time":"2026-01-02T03:04:05Z"}\n',
	]);
});
