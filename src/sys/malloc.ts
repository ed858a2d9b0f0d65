import { cFunction, hasFunction } from "./ffi.ts";

const mallocTrim = cFunction<[number]>("malloc_trim", "int", ["size_t"]);
const mallocOption = cFunction<[number, number]>("mallopt", "int", ["int", "int"]);
let isThere: boolean | undefined;

/** Numbers of mallopt(3). */
const M_TRIM_THRESHOLD = -1;
const M_ARENA_MAX = -8;

/**
 * The C library keeps what threads gave back, for each of them, unless it is told not to. Best called before threads are started.
 * musl has nothing to set.
 */
export function keepLittleMemory(): void {
	if (hasFunction("mallopt")) {
		mallocOption(M_ARENA_MAX, 2);
		mallocOption(M_TRIM_THRESHOLD, 128 << 10);
	}
}

/** Gives what the C library keeps of freed memory back to the kernel; with musl, which keeps little, it does nothing. */
export function trimMemory(): void {
	isThere ??= hasFunction("malloc_trim");
	if (isThere) {
		mallocTrim(0);
	}
}
