const kept = new WeakSet<object>();

/**
 * Notes that a client or frontend has made the error itself: what clients of BuildKit's API get of it has its own code, also where
 * an error of ours with that code would be `unknown` to them.
 */
export function keepCode<T extends Error>(error: T): T {
	kept.add(error);
	return error;
}

/** True if the code of the error, or of one of its causes, is to be kept. */
export function keepsCode(error: Error): boolean {
	for (let at: unknown = error; at instanceof Error; at = at.cause) {
		if (kept.has(at)) {
			return true;
		}
	}
	return false;
}
