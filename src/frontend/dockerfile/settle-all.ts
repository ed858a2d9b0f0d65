import { hasCode } from "../../errors/errors.ts";

/**
 * The results of works that run side by side. At the first failure `abort` is called, and when all works have ended the
 * failure is thrown that was not itself caused by the abort, of several the first in order.
 */
export async function settleAll<T>(works: readonly Promise<T>[], abort: () => void): Promise<readonly T[]> {
	const failures: unknown[] = [];
	const results: T[] = [];
	const settled = await Promise.allSettled(
		works.map((work) =>
			work.catch((error: unknown) => {
				abort();
				throw error;
			}),
		),
	);
	for (const each of settled) {
		if (each.status === "fulfilled") {
			results.push(each.value);
		} else {
			failures.push(each.reason);
		}
	}
	if (failures.length > 0) {
		throw failures.find((failure) => !hasCode(failure, "canceled")) ?? failures[0];
	}
	return results;
}
