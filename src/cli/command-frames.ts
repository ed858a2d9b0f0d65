/**
 * What a client and the daemon that runs its command say to each other: frames of a type (one byte), a length (32 bits,
 * little-endian) and that many bytes. Both are the same program of the same version, on the same machine, of the same user.
 */
export const frame = {
	// From the client.
	start: 1,
	stdin: 2,
	stdinEnd: 3,
	resize: 4,
	interrupt: 5,
	/** In place of `start`: the daemon ends when its running commands have, and with it the connection. */
	stop: 6,
	// From the daemon.
	refused: 16,
	stdout: 17,
	stderr: 18,
	wantStdin: 19,
	exit: 20,
	/** One byte: whether the terminal is to be raw. */
	rawMode: 21,
} as const;

/** JSON of `start`. */
export interface StartCommand {
	/** Must be the daemon's own; see `builderIdentity`. */
	readonly identity: readonly string[];
	/** Must be the daemon's own; see `fileSystemView`. */
	readonly view: string;
	readonly argv: readonly string[];
	readonly env: Readonly<Record<string, string | undefined>>;
	readonly cwd: string;
	readonly stdin: { readonly isTTY: boolean };
	readonly stdout: TerminalShape;
	readonly stderr: TerminalShape;
}

export interface TerminalShape {
	readonly isTTY: boolean;
	readonly columns?: number;
	readonly rows?: number;
}

/**
 * JSON of `refused`: the daemon is another program or has other settings, and ends when its builds have; it sees other files
 * than the client; or it is just ending.
 */
export interface RefusedCommand {
	readonly reason: "other-identity" | "other-view" | "stopping";
}

/** JSON of `resize`. */
export interface ResizedTerminal {
	readonly columns: number;
	readonly rows: number;
}

const maxFrameBytes = 16 << 20;
const headerBytes = 5;

export function encodeFrame(type: number, payload: Uint8Array | string = ""): Uint8Array {
	const bytes = typeof payload === "string" ? Buffer.from(payload) : payload;
	const out = Buffer.allocUnsafe(headerBytes + bytes.length);
	out[0] = type;
	out.writeUInt32LE(bytes.length, 1);
	out.set(bytes, headerBytes);
	return out;
}

/** Gives a function that takes what arrives, and calls `onFrame` for each frame that is whole. Throws for one that is too long. */
export function frameReader(onFrame: (type: number, payload: Buffer) => void): (chunk: Buffer) => void {
	let rest: Buffer = Buffer.alloc(0);
	return (chunk) => {
		rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
		while (rest.length >= headerBytes) {
			const length = rest.readUInt32LE(1);
			if (length > maxFrameBytes) {
				throw new RangeError(`frame of ${length} bytes`);
			}
			if (rest.length < headerBytes + length) {
				return;
			}
			const type = rest[0] ?? 0;
			const payload = rest.subarray(headerBytes, headerBytes + length);
			rest = rest.subarray(headerBytes + length);
			onFrame(type, payload);
		}
	};
}

/** Of a background builder whose state directory another process has. */
export const inUseExitCode = 75;
