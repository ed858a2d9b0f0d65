import type { FlagSpec } from "./flags.ts";

const list = (name: string, help: string, value = "string"): FlagSpec => ({
	name,
	kind: "list",
	help,
	value,
});
const text = (name: string, help: string, value = "string"): FlagSpec => ({
	name,
	kind: "string",
	help,
	value,
});
const bool = (name: string, help: string): FlagSpec => ({ name, kind: "bool", help });
const missing = (kind: FlagSpec["kind"], name: string, reason: string): FlagSpec => ({
	name,
	kind,
	help: "",
	missing: reason,
});

/** buildkitd's, and a few of ours. */
export const daemonFlags: readonly FlagSpec[] = [
	{ name: "help", short: "h", kind: "bool", help: "Show this help" },
	{ name: "version", short: "v", kind: "bool", help: "Print the version" },
	text("config", "Configuration file (default /etc/buildkit/buildkitd.toml)", "file"),
	text("root", "State directory (default $SLIPWAY_ROOT, else /var/lib/slipway)", "dir"),
	list(
		"addr",
		"Address to listen at: unix://, tcp://, fd://[number|name] (default unix:///run/buildkit/buildkitd.sock)",
		"address",
	),
	text("group", "Group, by name or number, that owns unix sockets", "group"),
	text("tlscert", "Certificate for tcp addresses", "file"),
	text("tlskey", "Key of the certificate", "file"),
	text("tlscacert", "Authority that clients' certificates must be of", "file"),
	bool("allow-plain-tcp", "Listen at addresses that other machines reach without TLS"),
	bool("debug", "Log more"),
	bool("trace", "Log most"),
	text("log-format", "text or json (default text)", "format"),
	text("log-level", "trace, debug, info, warn, error (default $BUILDKITD_LOG_LEVEL, else info)", "level"),
	text(
		"debugaddr",
		"Address of a server for profiles and metrics: host:port, unix:// (default none)",
		"address",
	),
	list(
		"allow-insecure-entitlement",
		"What builds may be allowed: network.host, security.insecure, device",
		"name",
	),
	text("idle-exit", "End when there was nothing to do for that long (default never)", "duration"),
	text("drain-timeout", "How long builds may go on after SIGTERM (default 1m)", "duration"),
	text("oci-worker", "true, false or auto (default auto)", "bool"),
	list("oci-worker-labels", "Labels of the worker", "key=value"),
	text("oci-worker-snapshotter", "auto, overlayfs, native (default auto)", "name"),
	list("oci-worker-platform", "Platforms of the worker, in place of what this machine runs", "platform"),
	text("oci-worker-net", "Network of steps: auto, bridge, cni, user, host (default auto)", "mode"),
	text("oci-cni-config-path", "Configuration of CNI (default /etc/buildkit/cni.json)", "file"),
	text("oci-cni-binary-dir", "Plugins of CNI (default /opt/cni/bin)", "dir"),
	text("oci-cni-pool-size", "Network namespaces that are kept for the next step", "int"),
	text("oci-worker-binary", "OCI runtime (default crun, else runc)", "program"),
	text("oci-max-parallelism", "Steps that run at the same time (default no limit)", "int"),
	bool("oci-worker-gc", "Delete what the policy says by itself (default true)"),
	text("oci-worker-gc-keepstorage", "Reserved[,Free[,Maximum]] space in MB", "sizes"),
	text("containerd-worker", "false or auto: this builder runs containers itself", "bool"),
	bool("rootless", "Run as a user, in a user namespace (what a user's daemon does anyway)"),
	bool("oci-worker-rootless", "The same"),
	missing("bool", "oci-worker-no-process-sandbox", "steps always have a process namespace of their own"),
	missing("string", "oci-worker-proxy-snapshotter-path", "snapshots are made by overlayfs or by copying"),
	missing("string", "oci-worker-apparmor-profile", "steps run without AppArmor"),
	missing("bool", "oci-worker-selinux", "steps run without SELinux labels"),
	missing("bool", "proxy-network", "steps have no network through a proxy"),
	text(
		"otel-socket-path",
		"Socket that programs of steps send their spans to (default otel-grpc.sock in the state directory)",
		"path",
	),
	bool("cdi-disabled", "No devices for steps"),
	list(
		"cdi-spec-dir",
		"Where devices are described (default /etc/cdi, /var/run/cdi, /etc/buildkit/cdi)",
		"dir",
	),
	missing("bool", "save-cache-debug", "cache keys are not kept for debugging"),
	...[
		"addr",
		"labels",
		"platform",
		"namespace",
		"runtime",
		"net",
		"snapshotter",
		"apparmor-profile",
		"selinux",
		"rootless",
		"gc",
		"gc-keepstorage",
	].map((name) => missing("string", `containerd-worker-${name}`, "this builder runs containers itself")),
	...["cni-config-path", "cni-binary-dir", "cni-pool-size", "max-parallelism"].map((name) =>
		missing("string", `containerd-${name}`, "this builder runs containers itself"),
	),
];
