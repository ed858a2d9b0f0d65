import type { Client } from "../../client/client.ts";
import type { CommandTrace } from "../../client/command-trace.ts";
import type { DialOptions, TlsFiles } from "../../client/dial.ts";
import { findDetail, hasCode, SlipwayError, toError } from "../../errors/errors.ts";
import type { ParsedFlags } from "../flags.ts";
import type { Terminal } from "../terminal.ts";

const defaultAddress = "unix:///run/buildkit/buildkitd.sock";

/**
 * What an error of a call begins with, before the gRPC code; undefined: it is as gRPC's library prints it, which BuildKit's client
 * does where it streams.
 */
export type CallName = string | undefined;

/** The connection of a command to its builder, made with the first call: flags are read before. */
export interface LateClient extends AsyncDisposable {
	/** Throws what is wrong with the flags that say where the builder is. */
	call<T>(name: CallName, action: (client: Client) => Promise<T>): Promise<T>;
	stream<T>(name: CallName, open: (client: Client) => AsyncIterable<T>): AsyncIterable<T>;
}

export function lateClient(
	globals: ParsedFlags,
	terminal: Terminal,
	trace: CommandTrace | undefined,
): LateClient {
	let opened: Promise<Client> | undefined;
	const open = async (name: CallName): Promise<Client> => {
		const tls = await tlsOf(globals);
		try {
			opened ??= connect(globals, terminal, { trace, tls });
			return await opened;
		} catch (thrown) {
			const error = toError(thrown);
			throw error.code === "unavailable" ? named(name, error) : error;
		}
	};
	return {
		async call(name, action) {
			const client = await open(name);
			try {
				return await action(client);
			} catch (thrown) {
				throw named(name, toError(thrown));
			}
		},
		async *stream(name, start) {
			const items = start(await open(name))[Symbol.asyncIterator]();
			try {
				for (;;) {
					const next = await items.next().catch((thrown: unknown) => {
						throw named(name, toError(thrown));
					});
					if (next.done === true) {
						return;
					}
					yield next.value;
				}
			} finally {
				await items.return?.();
			}
		},
		async [Symbol.asyncDispose]() {
			const client = await opened?.catch(() => undefined);
			await client?.[Symbol.asyncDispose]();
		},
	};
}

function named(name: CallName, error: SlipwayError): SlipwayError {
	const code = goCode(error.code);
	const message =
		name === undefined
			? `rpc error: code = ${code} desc = ${error.message}`
			: `${name === "" ? "" : `${name}: `}${error.code === "unknown" ? "" : `${code}: `}${error.message}`;
	return new SlipwayError(error.code, message, { cause: error });
}

/** `not-found` as Go's gRPC prints it: `NotFound`. */
function goCode(code: string): string {
	return code.replace(/(?:^|-)([a-z])/g, (_match, letter: string) => letter.toUpperCase());
}

export function address(globals: ParsedFlags, { env }: Terminal): string {
	return globals.string("addr") || env["BUILDKIT_HOST"] || defaultAddress;
}

async function connect(
	globals: ParsedFlags,
	terminal: Terminal,
	{ trace, tls }: { readonly trace: CommandTrace | undefined; readonly tls: TlsFiles | undefined },
): Promise<Client> {
	const { connectClient } = await import("../../client/connect.ts");
	const target = address(globals, terminal);
	const timeoutMs = Number(globals.string("timeout") ?? 5) * 1000;
	const deadline = timeoutMs > 0 ? AbortSignal.timeout(timeoutMs) : undefined;
	const options: DialOptions = {
		env: terminal.env,
		signal: AbortSignal.any([terminal.interrupted, ...(deadline === undefined ? [] : [deadline])]),
		...(tls === undefined ? {} : { tls }),
	};
	for (;;) {
		try {
			const client = await connectClient(target, { ...options, trace });
			if (globals.bool("wait")) {
				await client.info({ signal: options.signal });
			}
			return client;
		} catch (thrown) {
			const isLater = hasCode(thrown, "unavailable") && globals.bool("wait") && !options.signal.aborted;
			if (!isLater) {
				throw deadline?.aborted === true
					? new SlipwayError(
							"deadline-exceeded",
							`failed to dial ${JSON.stringify(target)}, make sure the builder is running: no answer within ${timeoutMs / 1000} s`,
							{ cause: thrown },
						)
					: whileDialing(explained(thrown, target));
			}
			await new Promise((wake) => setTimeout(wake, 1000));
		}
	}
}

/** Of the kernel's errors, in the words that Go has for them. */
const reasons: ReadonlyMap<string, string> = new Map([
	["ENOENT", "no such file or directory"],
	["ECONNREFUSED", "connection refused"],
	["EACCES", "permission denied"],
	["EHOSTUNREACH", "no route to host"],
	["ENETUNREACH", "network is unreachable"],
	["ETIMEDOUT", "connection timed out"],
]);

/** Nobody listens: said as Go says it, which is what scripts look for. */
export function explained(thrown: unknown, target: string): SlipwayError {
	const error = toError(thrown);
	const reason = reasons.get(findDetail(error, "errno")?.errno ?? "");
	const [, network, place = ""] = /^(unix|tcp):\/\/(.*)$/s.exec(target) ?? [];
	return error.code !== "unavailable" || reason === undefined || network === undefined
		? error
		: new SlipwayError("unavailable", `dial ${network} ${place}: connect: ${reason}`, { cause: error });
}

function whileDialing(error: SlipwayError): SlipwayError {
	return error.code === "unavailable"
		? new SlipwayError(
				"unavailable",
				`connection error: desc = "transport: Error while dialing: ${error.message}"`,
				{ cause: error },
			)
		: error;
}

async function tlsOf(globals: ParsedFlags): Promise<TlsFiles | undefined> {
	const [ca, cert, key] = ["tlscacert", "tlscert", "tlskey"].map((name) => globals.string(name) || undefined);
	const directory = globals.string("tlsdir") ?? "";
	const serverName = globals.string("tlsservername") || undefined;
	const named = serverName === undefined ? {} : { serverName };
	if (directory !== "") {
		if (ca !== undefined || cert !== undefined || key !== undefined) {
			throw new SlipwayError(
				"invalid-argument",
				"cannot specify tlsdir and tlscacert/tlscert/tlskey at the same time",
			);
		}
		const { tlsDirectory } = await import("../../client/dial.ts");
		return { ...tlsDirectory(directory), ...named };
	}
	if (ca === undefined && cert === undefined && key === undefined) {
		return undefined;
	}
	return {
		...named,
		...(ca === undefined ? {} : { ca }),
		...(cert === undefined ? {} : { cert }),
		...(key === undefined ? {} : { key }),
	};
}
