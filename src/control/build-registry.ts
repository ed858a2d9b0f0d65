import { canceled, SlipwayError } from "../errors/errors.ts";
import type { GatewayService } from "../frontend/gateway/gateway-service.ts";

/**
 * Builds whose client is the frontend, by the build's ref. The client asks to solve and calls the gateway at the same time, so
 * a call may come before the build is known.
 */
export interface BuildRegistry {
	/** Until disposed. */
	register(ref: string, gateway: GatewayService): Disposable;
	/** Waits a moment for it. Throws what BuildKit says about a job that it does not know. */
	find(ref: string, options: { readonly signal: AbortSignal }): Promise<GatewayService>;
}

/** BuildKit's. */
const waitMs = 3000;

export function createBuildRegistry(): BuildRegistry {
	const known = new Map<string, GatewayService>();
	const waiting = new Map<string, Set<(gateway: GatewayService) => void>>();

	return {
		register(ref, gateway) {
			known.set(ref, gateway);
			for (const found of waiting.get(ref) ?? []) {
				found(gateway);
			}
			return {
				[Symbol.dispose]() {
					if (known.get(ref) === gateway) {
						known.delete(ref);
					}
				},
			};
		},
		async find(ref, { signal }) {
			const gateway = known.get(ref);
			if (gateway !== undefined) {
				return gateway;
			}
			return await new Promise((resolve, reject) => {
				const others = waiting.get(ref) ?? new Set();
				waiting.set(ref, others);
				const end = (): void => {
					clearTimeout(timer);
					signal.removeEventListener("abort", abort);
					others.delete(found);
					if (others.size === 0) {
						waiting.delete(ref);
					}
				};
				const found = (value: GatewayService): void => {
					end();
					resolve(value);
				};
				const abort = (): void => {
					end();
					reject(canceled(signal.reason));
				};
				const timer = setTimeout(() => {
					end();
					reject(new SlipwayError("not-found", `no such job ${ref}`));
				}, waitMs);
				others.add(found);
				signal.addEventListener("abort", abort, { once: true });
				if (signal.aborted) {
					abort();
				}
			});
		},
	};
}
