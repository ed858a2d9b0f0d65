import assert from "node:assert/strict";
import { test } from "node:test";
import { hostsFile, resolvConf } from "./etc-files.ts";

function conf(
	files: Readonly<Record<string, string>>,
	options: Partial<Parameters<typeof resolvConf>[0]> = {},
): string {
	return resolvConf({
		sharesHostNetwork: false,
		reachable: [],
		read: (path) => files[path] ?? "",
		...options,
	});
}

const host = "/etc/resolv.conf";
const systemd = "/run/systemd/resolve/resolv.conf";

test("resolvConf: name servers on the host's loopback are no use to a sandboxed step", () => {
	assert.equal(
		conf({ [host]: "search a b\nnameserver 127.0.0.1\nnameserver 192.0.2.1\noptions ndots:2\n" }),
		"search a b\nnameserver 192.0.2.1\noptions ndots:2\n",
	);
	assert.equal(
		conf({ [host]: "nameserver ::1\n" }),
		"nameserver 8.8.8.8\nnameserver 8.8.4.4\nnameserver 2001:4860:4860::8888\nnameserver 2001:4860:4860::8844\n",
	);
	assert.equal(
		conf({ [host]: "nameserver 127.0.0.1\n" }, { reachable: ["10.0.2.3"] }),
		"nameserver 10.0.2.3\n",
	);
	assert.match(conf({}), /^nameserver 8\.8\.8\.8$/m);
});

test("resolvConf: systemd's stub is replaced by what it asks itself", () => {
	const files = { [host]: "nameserver 127.0.0.53\n", [systemd]: "nameserver 192.0.2.7\n" };
	assert.equal(conf(files), "nameserver 192.0.2.7\n");
	assert.equal(conf(files, { sharesHostNetwork: true }), "nameserver 127.0.0.53\n");
	assert.equal(
		conf({ ...files, [host]: "nameserver 127.0.0.53\nnameserver 192.0.2.1\n" }),
		"nameserver 192.0.2.1\n",
	);
});

test("resolvConf: what the operator sets takes the place of the machine's", () => {
	const dns = { nameservers: ["192.0.2.9"], options: ["edns0", "trust-ad"], searchDomains: [] };
	assert.equal(
		conf({ [host]: "search a\nnameserver 192.0.2.1\noptions x\n" }, { dns }),
		"search a\nnameserver 192.0.2.9\noptions edns0 trust-ad\n",
	);
	assert.match(
		conf({}, { dns: { ...dns, searchDomains: ["x.test", "y.test"] } }),
		/^search x\.test y\.test$/m,
	);
});

test("hostsFile: loopback, host name and what was asked for", () => {
	assert.equal(
		hostsFile("box", [{ host: "db", ip: "10.0.0.1" }]),
		"127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\tdb\n",
	);
});
