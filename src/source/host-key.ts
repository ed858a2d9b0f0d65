import { SlipwayError } from "../errors/errors.ts";
import { spawn } from "../sys/spawn.ts";
import type { ChildProcess } from "../sys/sys.ts";
import type { SourceOptions } from "./source.ts";

export interface HostKeyOptions extends Pick<SourceOptions, "signal"> {
	/** Where ssh-keyscan is looked for. */
	readonly searchPath: string;
	/** Default 5. */
	readonly timeoutSeconds?: number;
}

/**
 * Which of a server's keys BuildKit's client would see first: so the op's attribute is the same. Of all that a server
 * offers, ssh prefers the kind that is known already.
 */
const preferred = [
	"ecdsa-sha2-nistp256",
	"ecdsa-sha2-nistp384",
	"ecdsa-sha2-nistp521",
	"ssh-rsa",
	"ssh-ed25519",
];

/** More than all keys of a server. */
const maxOutputBytes = 64 << 10;

/**
 * The key of the ssh server at `host[:port]`, as a line of known_hosts without its end. Throws if it can't be had: nobody
 * answers, or there is no ssh-keyscan.
 */
export async function askHostKey(
	server: string,
	{ searchPath, signal, timeoutSeconds = 5 }: HostKeyOptions,
): Promise<string> {
	signal.throwIfAborted();
	// Not by way of an option of ssh-keyscan: a name begins with a letter or digit, an address of version 6 with a bracket.
	const [, bracketed, plain, port = "22"] =
		/^(?:\[([0-9a-f:.]+(?:%\w+)?)\]|([\p{L}\p{N}_][^\s[\]:/]*))(?::(\d+))?$/iu.exec(server) ?? [];
	const host = bracketed ?? plain;
	if (host === undefined) {
		throw new SlipwayError("invalid-argument", `${JSON.stringify(server)} is no server for ssh`);
	}
	const child = spawn({
		argv: ["ssh-keyscan", "-T", String(timeoutSeconds), "-p", port, "-t", "ecdsa,rsa,ed25519", host],
		env: { PATH: searchPath, LC_ALL: "C" },
		stderr: "null",
	});
	const kill = (): void => {
		child.kill("SIGKILL");
	};
	// Its own limit is for each connection.
	const timer = setTimeout(kill, timeoutSeconds * 2000);
	signal.addEventListener("abort", kill, { once: true });
	try {
		const [output] = await Promise.all([readAll(child), child.exited]);
		signal.throwIfAborted();
		const keys = output.split("\n").flatMap((line) => {
			const [name, type, key, ...more] = line.trim().split(" ");
			return name === undefined || name.startsWith("#") || key === undefined || more.length > 0
				? []
				: [{ type, key }];
		});
		const found = preferred.flatMap((type) => keys.find((each) => each.type === type) ?? []);
		const [first] = found;
		if (first === undefined) {
			throw new SlipwayError("unavailable", `${server} showed no key that ssh could know it by`);
		}
		return `${port === "22" ? host : `[${host}]:${port}`} ${first.type} ${first.key}`;
	} finally {
		clearTimeout(timer);
		signal.removeEventListener("abort", kill);
	}
}

async function readAll({ stdout }: ChildProcess): Promise<string> {
	let text = "";
	for await (const chunk of stdout ?? []) {
		if (text.length < maxOutputBytes) {
			text += (chunk as Uint8Array).toString();
		}
	}
	return text;
}
