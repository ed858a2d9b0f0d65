/**
 * The one error class of Slipway.
 *
 * An error carries a closed code for machines, one lower-case sentence for people, the cause, and typed details that
 * say where in the build it happened. Compare `code`, never class or text. Foreign errors become ours in one function
 * per edge of the system (system calls, HTTP, child processes).
 */

/** gRPC's status names; what crosses the wire is the number of the same name. */
export type ErrorCode =
	| "canceled"
	| "unknown"
	| "invalid-argument"
	| "deadline-exceeded"
	| "not-found"
	| "already-exists"
	| "permission-denied"
	| "resource-exhausted"
	| "failed-precondition"
	| "aborted"
	| "out-of-range"
	| "unimplemented"
	| "internal"
	| "unavailable"
	| "data-loss"
	| "unauthenticated";

/** A position in a source file: `line` counts from 1, `character` from 0. */
export interface Position {
	readonly line: number;
	readonly character: number;
}

export interface SourceRange {
	readonly start: Position;
	readonly end: Position;
}

/** The file that ranges point into, with its bytes, so that an excerpt can be drawn by whoever receives the error. */
export interface SourceFile {
	readonly filename: string;
	readonly data: Uint8Array;
	readonly language?: string;
}

export type ErrorDetail =
	/** The build step that failed, by digest. */
	| { readonly kind: "vertex"; readonly digest: string }
	/** The place in a Dockerfile (or other source of the graph) that the error is about. */
	| { readonly kind: "source"; readonly file: SourceFile; readonly ranges: readonly SourceRange[] }
	/** A process ended with this status; `signal` is set when it was killed. */
	| { readonly kind: "exit"; readonly code: number; readonly signal?: string }
	/** A system call's errno name, such as `ENOSPC`. */
	| { readonly kind: "errno"; readonly errno: string }
	/** A detail of an error of another program, as it came: a protobuf Any. */
	| { readonly kind: "foreign"; readonly typeUrl: string; readonly value: Uint8Array };

export interface ErrorOptions {
	readonly cause?: unknown;
	readonly details?: readonly ErrorDetail[];
}

export class SlipwayError extends Error {
	readonly code: ErrorCode;
	/** Ordered from inner to outer, as the wire has them. */
	readonly details: readonly ErrorDetail[];

	constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
		super(message, options.cause === undefined ? undefined : { cause: options.cause });
		this.name = "SlipwayError";
		this.code = code;
		this.details = options.details ?? [];
	}
}

/** True if `error` is ours and has the code. */
export function hasCode(error: unknown, code: ErrorCode): boolean {
	return error instanceof SlipwayError && error.code === code;
}

/** The first detail of the kind, from this error or the chain of its causes. */
export function findDetail<K extends ErrorDetail["kind"]>(
	error: unknown,
	kind: K,
): Extract<ErrorDetail, { kind: K }> | undefined {
	for (let at = error; at instanceof Error; at = at.cause) {
		if (!(at instanceof SlipwayError)) {
			continue;
		}
		const found = at.details.find((detail) => detail.kind === kind);
		if (found !== undefined) {
			return found as Extract<ErrorDetail, { kind: K }>;
		}
	}
	return undefined;
}

/** Codes for errno names that say something about the request or the machine; every other one is `unknown`. */
const codeOfErrno: Readonly<Record<string, ErrorCode>> = {
	ENOENT: "not-found",
	ENOTDIR: "not-found",
	EEXIST: "already-exists",
	EACCES: "permission-denied",
	EPERM: "permission-denied",
	ENOSPC: "resource-exhausted",
	EDQUOT: "resource-exhausted",
	ENOMEM: "resource-exhausted",
	EMFILE: "resource-exhausted",
	ENFILE: "resource-exhausted",
	EIO: "internal",
	EFAULT: "internal",
	ECONNREFUSED: "unavailable",
	ECONNRESET: "unavailable",
	EPIPE: "unavailable",
	ETIMEDOUT: "deadline-exceeded",
};

/**
 * Turns anything that was thrown into ours. An abort becomes `canceled` with the abort's reason as cause; a system
 * error keeps its errno as a detail; ours is returned as it is.
 */
export function toError(thrown: unknown): SlipwayError {
	if (thrown instanceof SlipwayError) {
		return thrown;
	}
	if (!(thrown instanceof Error)) {
		return new SlipwayError("unknown", String(thrown), { cause: thrown });
	}
	if (thrown.name === "AbortError") {
		const reason = thrown.cause;
		return reason instanceof SlipwayError ? reason : canceled(thrown);
	}
	const errno = (thrown as NodeJS.ErrnoException).code;
	if (typeof errno === "string" && /^E[A-Z0-9]+$/.test(errno)) {
		return new SlipwayError(codeOfErrno[errno] ?? "unknown", thrown.message, {
			cause: thrown,
			details: [{ kind: "errno", errno }],
		});
	}
	return new SlipwayError("unknown", thrown.message, { cause: thrown });
}

/** The error that an aborted operation ends with; its text is what BuildKit's clients look for. */
export function canceled(cause?: unknown): SlipwayError {
	return new SlipwayError("canceled", "context canceled", cause === undefined ? {} : { cause });
}

export interface WrapOptions {
	/** Replaces the code of the wrapped error. */
	readonly code?: ErrorCode;
	/** Appended to the details of the wrapped error. */
	readonly details?: readonly ErrorDetail[];
}

/** The same error one level further out: `prefix: message`, same code and details, the original as cause. */
export function wrap(thrown: unknown, prefix: string, options: WrapOptions = {}): SlipwayError {
	const inner = toError(thrown);
	return new SlipwayError(
		options.code ?? inner.code,
		prefix === "" ? inner.message : `${prefix}: ${inner.message}`,
		{
			cause: thrown,
			details: [...inner.details, ...(options.details ?? [])],
		},
	);
}

/** The URL without user, password and the values of its query, for messages and logs. Not a URL: returned unchanged. */
export function redactUrl(text: string): string {
	const url = URL.parse(text);
	if (url === null) {
		return text;
	}
	if (url.username !== "") {
		url.username = "xxxxx";
	}
	if (url.password !== "") {
		url.password = "xxxxx";
	}
	for (const key of [...url.searchParams.keys()]) {
		url.searchParams.set(key, "xxxxx");
	}
	return url.href;
}
