import {
	closeSync,
	mkdirSync,
	mkdtempSync,
	openSync,
	renameSync,
	rmSync,
	writeFileSync,
	writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SlipwayError, toError, wrap } from "../errors/errors.ts";

/** The part of the archiver that a context on stdin needs. */
export interface ContextArchiver {
	/** False if the file is no archive. Nothing is written outside of `dest`. */
	unpack(
		request: { readonly path: string; readonly dest: string },
		options: { readonly signal: AbortSignal },
	): Promise<boolean>;
}

/** A directory that was made for the build; it goes when this is disposed. */
export interface TemporaryContext extends AsyncDisposable {
	/** `archive`: `path` is the build context. `dockerfile`: the context is empty, and `dockerfileDirectory` has a `Dockerfile`. */
	readonly kind: "archive" | "dockerfile" | "empty";
	readonly path: string;
	readonly dockerfileDirectory: string | undefined;
}

export interface StdinOptions {
	readonly stdin: AsyncIterable<Uint8Array | string>;
	/** `--file` names a Dockerfile, so that stdin must not be one. */
	readonly dockerfileGiven: boolean;
	readonly archiver: ContextArchiver;
	readonly signal: AbortSignal;
}

/** `slipway build -`: an archive is unpacked to be the context; anything else is the Dockerfile of an empty one. */
export async function contextFromStdin(options: StdinOptions): Promise<TemporaryContext> {
	const root = temporaryDirectory();
	await using cleanup = new AsyncDisposableStack();
	cleanup.defer(() => remove(root));
	const path = join(root, "context");
	mkdirSync(path, { mode: 0o755 });
	const file = join(root, "stdin");
	const head = await saveStream(options.stdin, file, options.signal);
	const result = await interpret(head, { file, root, path }, options);
	const kept = cleanup.move();
	return { ...result, path, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/** `-f -`: a directory with what comes from stdin as its `Dockerfile`. */
export async function dockerfileFromStdin(
	options: Pick<StdinOptions, "stdin" | "signal">,
): Promise<AsyncDisposable & { readonly path: string }> {
	const path = temporaryDirectory();
	await using cleanup = new AsyncDisposableStack();
	cleanup.defer(() => remove(path));
	await saveStream(options.stdin, join(path, "Dockerfile"), options.signal);
	const kept = cleanup.move();
	return { path, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/** A Dockerfile that is given as text (bake's `dockerfile-inline`). */
export function dockerfileFromText(text: string): AsyncDisposable & { readonly path: string } {
	const path = temporaryDirectory();
	writeFileSync(join(path, "Dockerfile"), text);
	return { path, [Symbol.asyncDispose]: () => remove(path) };
}

async function interpret(
	head: Uint8Array,
	at: { readonly file: string; readonly root: string; readonly path: string },
	options: StdinOptions,
): Promise<Pick<TemporaryContext, "kind" | "dockerfileDirectory">> {
	if (head.length === 0) {
		return { kind: "empty", dockerfileDirectory: undefined };
	}
	if (isArchive(head)) {
		const done = await unpack(at, options);
		if (!done) {
			throw new SlipwayError(
				"invalid-argument",
				"build context from stdin is not an archive that can be unpacked",
			);
		}
		rmSync(at.file);
		return { kind: "archive", dockerfileDirectory: undefined };
	}
	if (options.dockerfileGiven) {
		throw new SlipwayError(
			"invalid-argument",
			"ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
		);
	}
	const directory = join(at.root, "dockerfile");
	mkdirSync(directory);
	renameSync(at.file, join(directory, "Dockerfile"));
	return { kind: "dockerfile", dockerfileDirectory: directory };
}

async function unpack(
	at: { readonly file: string; readonly path: string },
	{ archiver, signal }: StdinOptions,
): Promise<boolean> {
	try {
		return await archiver.unpack({ path: at.file, dest: at.path }, { signal });
	} catch (thrown) {
		throw wrap(thrown, "could not unpack build context from stdin");
	}
}

const headBytes = 512;

/** By the beginning: bzip2, gzip, xz, or the header of a tar, which has a sum of its own bytes. */
export function isArchive(head: Uint8Array): boolean {
	const starts = (...bytes: number[]): boolean => bytes.every((byte, index) => head[index] === byte);
	return (
		starts(0x42, 0x5a, 0x68) ||
		starts(0x1f, 0x8b, 0x08) ||
		starts(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00) ||
		isTarHeader(head)
	);
}

function isTarHeader(head: Uint8Array): boolean {
	if (head.length < headBytes) {
		return false;
	}
	const text = Buffer.from(head.subarray(148, 156)).toString("latin1").replace(/\0/g, " ").trim();
	if (!/^[0-7]+$/.test(text)) {
		return false;
	}
	let sum = 0;
	for (let at = 0; at < headBytes; at++) {
		// The sum is made with blanks in its own place.
		sum += at >= 148 && at < 156 ? 0x20 : (head[at] ?? 0);
	}
	return sum === Number.parseInt(text, 8);
}

/** Writes the stream to the file and gives its first bytes. */
async function saveStream(
	stream: AsyncIterable<Uint8Array | string>,
	file: string,
	signal: AbortSignal,
): Promise<Uint8Array> {
	const fd = openSync(file, "wx", 0o644);
	const head = new Uint8Array(headBytes);
	let size = 0;
	try {
		for await (const part of untilAborted(stream, signal)) {
			const chunk = typeof part === "string" ? Buffer.from(part, "utf8") : part;
			if (size < headBytes) {
				head.set(chunk.subarray(0, headBytes - size), size);
			}
			size += chunk.length;
			for (let at = 0; at < chunk.length; ) {
				at += writeSync(fd, chunk, at);
			}
		}
		return head.subarray(0, Math.min(size, headBytes));
	} catch (thrown) {
		throw wrap(thrown, "could not read stdin");
	} finally {
		closeSync(fd);
	}
}

/** A terminal that nobody types on gives no chunk to notice an abort at. */
async function* untilAborted<T>(stream: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T, void> {
	const iterator = stream[Symbol.asyncIterator]();
	const aborted = Promise.withResolvers<never>();
	aborted.promise.catch(() => undefined);
	const onAbort = (): void => aborted.reject(toError(signal.reason));
	if (signal.aborted) {
		onAbort();
	}
	signal.addEventListener("abort", onAbort);
	try {
		for (;;) {
			const next = await Promise.race([iterator.next(), aborted.promise]);
			if (next.done === true) {
				return;
			}
			yield next.value;
		}
	} finally {
		signal.removeEventListener("abort", onAbort);
	}
}

function temporaryDirectory(): string {
	try {
		return mkdtempSync(join(tmpdir(), "slipway-context-"));
	} catch (thrown) {
		throw wrap(thrown, "could not make a temporary directory");
	}
}

async function remove(path: string): Promise<void> {
	rmSync(path, { recursive: true, force: true });
}
