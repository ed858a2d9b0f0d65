import { join } from "node:path";
import { builderVersion } from "../daemon/builder-version.ts";
import { loadConfigFile } from "../daemon/config-file.ts";
import { startDaemon } from "../daemon/daemon.ts";
import { defaultAddressOf, defaultConfigFileOf } from "../daemon/default-places.ts";
import { defaultRoot } from "../daemon/default-root.ts";
import type { GcSettings } from "../daemon/gc-policy.ts";
import { createLastResort } from "../daemon/last-resort.ts";
import { createLogger } from "../daemon/logger.ts";
import { type ConfigFlags, mergeConfig } from "../daemon/merge-config.ts";
import { isRootless } from "../daemon/rootless.ts";
import { SlipwayError, wrap } from "../errors/errors.ts";
import { parseGoDuration } from "../oci/go-duration.ts";
import { daemonFlags } from "./daemon-flags.ts";
import { helpLines, type ParsedFlags, parseBool, parseFlags } from "./flags.ts";
import type { Terminal } from "./terminal.ts";

const defaultDrainMs = 60_000;

/** `slipwayd`, also as `buildkitd` and `slipway daemon`: serves BuildKit's API until it is told to end. */
export async function daemonCommand(argv: readonly string[], terminal: Terminal): Promise<number> {
	const flags = parseFlags(argv, daemonFlags);
	if (flags.bool("help")) {
		terminal.stdout.write(
			`${["Usage: slipwayd [flags]", "", "Serves BuildKit's API.", "", "Flags:", ...helpLines(daemonFlags)].join("\n")}\n`,
		);
		return 0;
	}
	if (flags.bool("version")) {
		terminal.stdout.write(
			`slipwayd ${builderVersion.package} ${builderVersion.version} ${builderVersion.revision}\n`,
		);
		return 0;
	}
	const [extra] = flags.args;
	if (extra !== undefined) {
		throw new SlipwayError(
			"invalid-argument",
			`slipwayd takes no arguments, but got ${JSON.stringify(extra)}`,
		);
	}
	const { env } = terminal;
	const file = loadConfigFile(flags.string("config") ?? defaultConfigFileOf(env));
	const root = env["SLIPWAY_ROOT"] || defaultRoot(env);
	const given = readFlags(flags, env);
	const addresses = given.addresses ?? file.addresses ?? [defaultAddressOf(env)];
	const config = mergeConfig(file, { ...given, addresses }, root);
	checkRootless(flags, file.worker.rootless);
	if (config.grpc.addresses.length === 0) {
		throw new SlipwayError("invalid-argument", "--addr cannot be empty");
	}
	const logger = createLogger(config.log, (line) => terminal.stderr.write(line));
	for (const warning of file.warnings) {
		logger.log("warning", warning);
	}
	if (flags.bool("trace")) {
		logger.log("warning", "--trace option is deprecated; use --log-level=trace instead");
	}
	// Files get the modes that builds give them.
	process.umask(0);
	const traceSocket = config.traceSocket ?? defaultTraceSocket(config.root);
	await using daemon = await startDaemon(
		{ ...config, ...(traceSocket === undefined ? {} : { traceSocket }) },
		{
			env,
			logger,
			version: builderVersion,
			drainMs: durationMs(flags, "drain-timeout") ?? defaultDrainMs,
		},
	);
	using lastResort = createLastResort({ logger, stop: daemon.stop });
	if (terminal.interrupted.aborted) {
		daemon.stop();
	}
	terminal.interrupted.addEventListener("abort", () => daemon.stop());
	await daemon.stopped;
	return lastResort.gaveUp ? 1 : 0;
}

/** Undefined where no socket can have the name, sun_path of unix(7). */
function defaultTraceSocket(root: string): string | undefined {
	const path = join(root, "otel-grpc.sock");
	return Buffer.byteLength(path) < 108 ? path : undefined;
}

function readFlags(flags: ParsedFlags, env: Terminal["env"]): ConfigFlags {
	checkWorkers(flags);
	const level = flags.string("log-level") ?? env["BUILDKITD_LOG_LEVEL"];
	const texts = defined({
		root: flags.string("root"),
		logFormat: flags.string("log-format"),
		logLevel: flags.bool("trace") ? "trace" : flags.bool("debug") ? "debug" : level || undefined,
		group: flags.string("group"),
		tlsCert: flags.string("tlscert"),
		tlsKey: flags.string("tlskey"),
		tlsCa: flags.string("tlscacert"),
		snapshotter: flags.string("oci-worker-snapshotter"),
		networkMode: flags.string("oci-worker-net"),
		cniConfigPath: flags.string("oci-cni-config-path"),
		cniBinaryPath: flags.string("oci-cni-binary-dir"),
		binary: flags.string("oci-worker-binary"),
		cniPoolSize: integer(flags, "oci-cni-pool-size"),
		maxParallelism: integer(flags, "oci-max-parallelism"),
		idleExitMs: durationMs(flags, "idle-exit"),
		debugAddress: flags.string("debugaddr"),
		traceSocket: flags.string("otel-socket-path"),
		addresses: listOf(flags, "addr"),
		entitlements: listOf(flags, "allow-insecure-entitlement"),
		platforms: listOf(flags, "oci-worker-platform"),
		labels: listOf(flags, "oci-worker-labels"),
		deviceDirectories: listOf(flags, "cdi-spec-dir"),
		devicesDisabled: flags.given("cdi-disabled") ? flags.bool("cdi-disabled") : undefined,
	});
	return {
		...texts,
		allowPlainTcp: flags.bool("allow-plain-tcp"),
		...(flags.given("oci-worker-gc") ? { gc: flags.bool("oci-worker-gc") } : {}),
		...(flags.given("oci-worker-gc-keepstorage")
			? { gcStorage: gcStorage(flags.string("oci-worker-gc-keepstorage") ?? "") }
			: {}),
	};
}

function defined<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
	return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
		[K in keyof T]?: Exclude<T[K], undefined>;
	};
}

function listOf(flags: ParsedFlags, name: string): readonly string[] | undefined {
	return flags.given(name) ? flags.list(name) : undefined;
}

/** There is one worker, which is of the kind that BuildKit calls oci. */
function checkWorkers(flags: ParsedFlags): void {
	const wants = (name: string): boolean | undefined => {
		const value = flags.string(name) ?? "";
		return value === "" || value.toLowerCase() === "auto" ? undefined : parseBool(name, value) === "true";
	};
	if (wants("containerd-worker") === true) {
		throw new SlipwayError(
			"unimplemented",
			"flag --containerd-worker is not supported: this builder runs containers itself",
		);
	}
	if (wants("oci-worker") === false) {
		throw new SlipwayError("invalid-argument", "--oci-worker is false, but there is no other worker");
	}
}

/** A daemon that a user started is in a user namespace of his own anyway. */
function checkRootless(flags: ParsedFlags, inFile: boolean | undefined): void {
	const wanted = flags.bool("rootless") || flags.bool("oci-worker-rootless") || inFile === true;
	if (wanted && !isRootless()) {
		throw new SlipwayError(
			"failed-precondition",
			"rootless mode requires to be executed as the mapped root in a user namespace: start the daemon as a user, who gets one",
		);
	}
}

function integer(flags: ParsedFlags, name: string): number | undefined {
	const value = flags.string(name);
	if (value !== undefined && !/^-?\d{1,9}$/.test(value)) {
		throw new SlipwayError("invalid-argument", `invalid value ${JSON.stringify(value)} for flag --${name}`);
	}
	return value === undefined ? undefined : Number(value);
}

function durationMs(flags: ParsedFlags, name: string): number | undefined {
	const value = flags.string(name);
	try {
		return value === undefined ? undefined : parseGoDuration(value) / 1e6;
	} catch (error) {
		throw wrap(error, `flag --${name}`);
	}
}

/** `Reserved[,Free[,Maximum]]` in megabytes. */
function gcStorage(value: string): Pick<GcSettings, "reserved" | "maxUsed" | "minFree"> {
	const names = ["reserved", "minFree", "maxUsed"] as const;
	const fields = value === "" ? [] : value.split(",");
	if (fields.length > names.length || fields.some((field) => !/^\d{1,9}$/.test(field))) {
		throw new SlipwayError("invalid-argument", `failed to parse storage ${JSON.stringify(value)}`);
	}
	return Object.fromEntries(
		fields.map((field, index) => [names[index], { kind: "bytes", bytes: Number(field) * 1e6 }]),
	);
}
