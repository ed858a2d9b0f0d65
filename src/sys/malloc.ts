import { cFunction, hasFunction } from "./ffi.ts";

const mallocTrim = cFunction<[number]>("malloc_trim", "int", ["size_t"]);
let isThere: boolean | undefined;

/** Gives what the C library keeps of freed memory back to the kernel; with musl, which keeps little, it does nothing. */
export function trimMemory(): void {
	isThere ??= hasFunction("malloc_trim");
	if (isThere) {
		mallocTrim(0);
	}
}
