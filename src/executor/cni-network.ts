import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SlipwayError, wrap } from "../errors/errors.ts";
import { findProgram } from "../sys/find-program.ts";
import { mount, unmount } from "../sys/mount.ts";
import { createNetworkNamespace } from "../sys/network.ts";
import { spawn } from "../sys/spawn.ts";
import type { NetworkProvider } from "./network.ts";
import { createNetworkPool, type PooledNetwork } from "./network-pool.ts";
import { bringLoopbackUp } from "./routed-network.ts";

export interface CniNetworkOptions {
	readonly configPath: string;
	/** Where plugins are; several directories separated by colons. */
	readonly binaryDir: string;
	/** Of ours: names of namespaces while they are used, which plugins of a killed builder are told about later. */
	readonly root: string;
	readonly maxIdle: number;
	readonly debug: (message: string) => void;
}

/** A plugin's part of a configuration: whatever it understands, and its name. */
interface PluginConfig {
	readonly type: string;
	readonly ipam?: { readonly type?: string };
	readonly [key: string]: unknown;
}

interface CniConfig {
	readonly cniVersion: string;
	readonly name: string;
	readonly plugins: readonly PluginConfig[];
}

/**
 * Networks that the operator describes by a CNI configuration (github.com/containernetworking/cni, SPEC.md 1.0): each plugin is a
 * program that is told of a namespace, in order to set it up and in the opposite order to take it down.
 */
export function createCniNetwork(options: CniNetworkOptions): NetworkProvider {
	let config: CniConfig | undefined;
	const pool = createNetworkPool({
		make: async (signal) => {
			if (config === undefined) {
				config = readConfig(options.configPath);
				await takeDownLeft(config, options);
			}
			return await connect(config, options, signal);
		},
		maxIdle: options.maxIdle,
		maxUsed: Number.POSITIVE_INFINITY,
	});
	return { name: "cni", acquire: pool.acquire, [Symbol.asyncDispose]: () => pool[Symbol.asyncDispose]() };
}

/** A list of plugins, or one plugin's configuration alone. */
function readConfig(path: string): CniConfig {
	let text: string;
	try {
		text = readFileSync(path, "utf8");
	} catch (error) {
		throw wrap(error, `failed to read cni config ${JSON.stringify(path)}`);
	}
	let value: Partial<CniConfig> & Partial<PluginConfig>;
	try {
		value = JSON.parse(text) as typeof value;
	} catch (error) {
		throw new SlipwayError("invalid-argument", `cni config ${path} is not JSON`, { cause: error });
	}
	const plugins = value.plugins ?? (typeof value.type === "string" ? [value as PluginConfig] : []);
	if (plugins.length === 0 || plugins.some((plugin) => !/^[\w.-]+$/.test(plugin.type ?? ""))) {
		throw new SlipwayError("invalid-argument", `cni config ${path} names no plugin`);
	}
	return { cniVersion: value.cniVersion ?? "0.2.0", name: value.name ?? "buildkit", plugins };
}

let counter = 0;

async function connect(
	config: CniConfig,
	options: CniNetworkOptions,
	signal: AbortSignal,
): Promise<PooledNetwork> {
	const directory = namespaceDirectory(options);
	mkdirSync(directory, { recursive: true, mode: 0o700 });
	const id = `slipway-${process.pid}-${Date.now().toString(36)}-${counter++}`;
	const path = join(directory, id);
	const namespace = createNetworkNamespace(bringLoopbackUp);
	writeFileSync(path, "");
	mount({ type: "bind", source: namespace.path, options: [] }, path);
	const close = async (): Promise<void> => {
		await takeDown(config, { id, path: namespace.path, options });
		unmount(path, { detach: true });
		rmSync(path, { force: true });
		namespace[Symbol.dispose]();
	};
	try {
		let result: unknown;
		for (const plugin of config.plugins) {
			signal.throwIfAborted();
			result = await callPlugin("ADD", plugin, { config, id, path, previous: result, options });
		}
		return { namespacePath: path, nameservers: [], [Symbol.asyncDispose]: close };
	} catch (error) {
		await close();
		throw error;
	}
}

function namespaceDirectory({ root }: CniNetworkOptions): string {
	return join(root, "cni");
}

/** Every plugin is told, whatever the others say. */
async function takeDown(
	config: CniConfig,
	{ id, path, options }: { readonly id: string; readonly path: string; readonly options: CniNetworkOptions },
): Promise<void> {
	for (const plugin of config.plugins.toReversed()) {
		try {
			await callPlugin("DEL", plugin, { config, id, path, previous: undefined, options });
		} catch (error) {
			options.debug(`cni: ${error instanceof Error ? error.message : error}`);
		}
	}
}

/** Namespaces of a killed builder are gone; addresses and rules that plugins keep for them are not. */
async function takeDownLeft(config: CniConfig, options: CniNetworkOptions): Promise<void> {
	const directory = namespaceDirectory(options);
	let left: readonly string[];
	try {
		left = readdirSync(directory);
	} catch {
		return;
	}
	for (const id of left) {
		await takeDown(config, { id, path: "", options });
		rmSync(join(directory, id), { force: true });
	}
}

async function callPlugin(
	command: "ADD" | "DEL",
	plugin: PluginConfig,
	{
		config,
		id,
		path,
		previous,
		options,
	}: {
		readonly config: CniConfig;
		readonly id: string;
		readonly path: string;
		readonly previous: unknown;
		readonly options: CniNetworkOptions;
	},
): Promise<unknown> {
	const program = findProgram(plugin.type, options.binaryDir);
	if (program === undefined || !statSync(program).isFile()) {
		throw new SlipwayError(
			"failed-precondition",
			`failed to find plugin ${JSON.stringify(plugin.type)} in path [${options.binaryDir}]`,
		);
	}
	const { cniVersion, name } = config;
	const input = { ...plugin, cniVersion, name, ...(previous === undefined ? {} : { prevResult: previous }) };
	const child = spawn({
		argv: [program],
		env: {
			PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			CNI_COMMAND: command,
			CNI_CONTAINERID: id,
			CNI_NETNS: path,
			CNI_IFNAME: plugin.type === "loopback" ? "lo" : "eth0",
			CNI_PATH: options.binaryDir,
			CNI_ARGS: "IgnoreUnknown=1",
		},
		stdin: "pipe",
	});
	child.stdin?.on("error", () => {});
	child.stdin?.end(JSON.stringify(input));
	const [output, errors, { code }] = await Promise.all([
		textOf(child.stdout),
		textOf(child.stderr),
		child.exited,
	]);
	if (code !== 0) {
		throw new SlipwayError(
			"failed-precondition",
			`plugin type=${JSON.stringify(plugin.type)} failed (${command === "ADD" ? "add" : "delete"}): ${errorOf(output) ?? errors.trim()}`,
		);
	}
	return output.trim() === "" ? previous : (JSON.parse(output) as unknown);
}

function errorOf(output: string): string | undefined {
	try {
		const { msg, details } = JSON.parse(output) as { readonly msg?: string; readonly details?: string };
		return msg === undefined ? undefined : [msg, details].filter(Boolean).join(": ");
	} catch {
		return undefined;
	}
}

async function textOf(stream: AsyncIterable<unknown> | undefined): Promise<string> {
	const chunks: Buffer[] = [];
	for await (const chunk of stream ?? []) {
		chunks.push(chunk as Buffer);
	}
	return Buffer.concat(chunks).toString("utf8");
}
