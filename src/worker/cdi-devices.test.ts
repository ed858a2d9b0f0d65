import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { grantDevices, parseEntitlement } from "../control/entitlements.ts";
import { withDeviceEdits } from "../executor/device-edits.ts";
import type { Device } from "../llb/op.ts";
import type { RuntimeSpec } from "../oci/runtime-spec.ts";
import { createDeviceRegistry, type DeviceRegistry } from "./cdi-devices.ts";

let dir = "";
let registry: DeviceRegistry;
const warnings: string[] = [];

const files: Readonly<Record<string, string>> = {
	"one/first.yaml": `
cdiVersion: "0.6.0"
kind: "vendor1.com/device"
annotations:
  org.mobyproject.buildkit.device.class: class1
containerEdits:
  env:
  - ALL=yes
devices:
- name: foo
  containerEdits:
    env:
    - FOO=injected
    deviceNodes:
    - path: /dev/mynull
      hostPath: /dev/null
- name: bar
  annotations:
    org.mobyproject.buildkit.device.autoallow: "true"
  containerEdits:
    mounts:
    - hostPath: /bin
      containerPath: /host/bin
      options: ["ro", "nosuid", "nodev", "rbind"]
`,
	"one/second.json": JSON.stringify({
		cdiVersion: "0.6.0",
		kind: "vendor2.com/other",
		devices: [
			{ name: "x", containerEdits: { env: ["X=low"] } },
			{ name: "same", containerEdits: {} },
		],
	}),
	"one/third.json": JSON.stringify({
		cdiVersion: "0.6.0",
		kind: "vendor2.com/other",
		devices: [{ name: "same", containerEdits: {} }],
	}),
	"two/override.json": JSON.stringify({
		cdiVersion: "0.6.0",
		kind: "vendor2.com/other",
		devices: [{ name: "x", containerEdits: { env: ["X=high"] } }],
	}),
	"one/broken.json": "{",
	"one/unknown.json": JSON.stringify({
		cdiVersion: "1.1.0",
		kind: "a.com/b",
		devices: [{ name: "n", containerEdits: { netDevices: [] } }],
	}),
	"one/ignored.txt": "nothing",
};

before(() => {
	dir = mkdtempSync(join(tmpdir(), "slipway-cdi-"));
	for (const [name, text] of Object.entries(files)) {
		mkdirSync(join(dir, name.split("/")[0] ?? ""), { recursive: true });
		writeFileSync(join(dir, name), text);
	}
	registry = createDeviceRegistry({
		directories: [join(dir, "one"), join(dir, "two"), join(dir, "none")],
		autoAllowed: ["vendor2.com/other"],
		warn: (message) => warnings.push(message),
	});
});

after(() => rmSync(dir, { recursive: true, force: true }));

const device = (name: string, optional = false): Device => ({ name, optional });

test("list: devices of all files that can be used; later directories win, equals cancel out", () => {
	assert.deepEqual(
		registry.list().map(({ name }) => name),
		["vendor1.com/device=bar", "vendor1.com/device=foo", "vendor2.com/other=x"],
	);
	assert.match(warnings.join("\n"), /broken\.json is not used/);
	assert.match(warnings.join("\n"), /unknown\.json is not used: containerEdits\.netDevices is not supported/);
	assert.match(warnings.join("\n"), /vendor2\.com\/other=same is in several files/);
});

test("find: by full name, the first of a kind, all of a kind, a class", () => {
	assert.deepEqual(registry.find([device("vendor1.com/device=foo")]), ["vendor1.com/device=foo"]);
	assert.deepEqual(registry.find([device("vendor1.com/device")]), ["vendor1.com/device=bar"]);
	assert.deepEqual(registry.find([device("vendor1.com/device=*")]).length, 2);
	assert.deepEqual(registry.find([device("class1")]).length, 2);
	assert.deepEqual(registry.find([device("vendor9.com/device=foo", true)]), []);
	assert.throws(
		() => registry.find([device("vendor9.com/device=foo")]),
		/required device "vendor9\.com\/device=foo" is not registered/,
	);
});

test("grantDevices: refused unless granted, or given to everybody", () => {
	const grant = (devices: readonly Device[], ...texts: readonly string[]): readonly string[] =>
		grantDevices(devices, new Set(texts.map(parseEntitlement)), registry).map(({ name }) => name);
	const foo = device("vendor1.com/device=foo");
	assert.throws(() => grant([foo]), {
		code: "permission-denied",
		message: "device vendor1.com/device=foo is requested by the build but not allowed",
	});
	assert.throws(() => grant([foo, device("vendor2.com/other=x")], "network.host"), /=foo is requested/);
	assert.deepEqual(grant([foo], "device"), ["vendor1.com/device=foo"]);
	assert.deepEqual(grant([foo], "device=vendor1.com/device=foo"), ["vendor1.com/device=foo"]);
	assert.deepEqual(grant([foo], "device=class1"), ["vendor1.com/device=foo"]);
	assert.throws(() => grant([foo], "device=vendor1.com/device=bar"), /=foo is requested by the build/);
	assert.deepEqual(
		grant([device("vendor1.com/device=bar")]),
		["vendor1.com/device=bar"],
		"by its annotation",
	);
	assert.deepEqual(grant([device("vendor2.com/other=x")]), ["vendor2.com/other=x"], "by configuration");
	assert.deepEqual(grant([device("mine")], "device=vendor1.com/device=foo,alias=mine"), [
		"vendor1.com/device=foo",
	]);
	assert.deepEqual(grant([device("vendor9.com/d=n", true)]), []);
	assert.throws(() => parseEntitlement("device=a,b=c"), /unknown device config key "b"/);
	assert.throws(() => parseEntitlement("device=a,b"), /invalid device config "b"/);
	assert.throws(() => parseEntitlement("network.host=x"), /unknown entitlement network\.host=x/);
});

test("withDeviceEdits: variables, nodes with the machine's numbers, mounts", () => {
	const spec: RuntimeSpec = {
		ociVersion: "1.0.2",
		process: { user: { uid: 7, gid: 0 }, args: [], env: ["FOO=old", "A=b"], cwd: "/" },
		root: { path: "/" },
		mounts: [{ destination: "/host/bin", type: "tmpfs" }],
		linux: { resources: { devices: [{ allow: false, access: "rwm" }] } },
	};
	const edits = registry.edits(["vendor1.com/device=foo", "vendor1.com/device=bar"]);
	const edited = withDeviceEdits(spec, edits);
	assert.deepEqual(edited.process.env, ["A=b", "ALL=yes", "FOO=injected"]);
	assert.deepEqual(edited.linux.devices, [{ path: "/dev/mynull", type: "c", major: 1, minor: 3, uid: 7 }]);
	assert.deepEqual(edited.linux.resources?.devices, [
		{ allow: false, access: "rwm" },
		{ allow: true, type: "c", major: 1, minor: 3, access: "rwm" },
	]);
	assert.deepEqual(edited.mounts, [
		{ destination: "/host/bin", type: "bind", source: "/bin", options: ["ro", "nosuid", "nodev", "rbind"] },
	]);
	const broken = { path: "/dev/x", hostPath: "/dev/nowhere", permissions: "rwm" };
	assert.throws(
		() =>
			withDeviceEdits(spec, [{ env: [], deviceNodes: [broken], mounts: [], hooks: [], additionalGids: [] }]),
		/failed to stat CDI host device "\/dev\/nowhere"/,
	);
});
