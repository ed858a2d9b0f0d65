import { emptyHealthCheckRequest } from "../api/generated/health.ts";
import type { Channel } from "../api/grpc.ts";
import { health } from "../api/services/health.ts";
import { type SlipwayError, wrap } from "../errors/errors.ts";

export interface HealthMonitorOptions {
	/** Milliseconds, from the client's header; it asks to be given up sooner. */
	readonly customTimeout: string | undefined;
	/** Called once, with the reason. */
	readonly onDead: (error: SlipwayError) => void;
}

const intervalMs = 5000;
const timeoutMs = 15_000;
const maxFailures = 2;
/** No client is given up sooner than this, whatever it asks for. */
const leastTimeoutMs = 1000;

/** Asks the client now and then whether it lives; long enough that a slow line and a busy client do (session/grpc.go). Gives what stops it. */
export function monitorHealth(channel: Channel, options: HealthMonitorOptions): () => void {
	const asked = /^[+]?\d{1,9}$/.test(options.customTimeout ?? "") ? Number(options.customTimeout) : 0;
	const custom = asked > 0 ? Math.max(asked, leastTimeoutMs) : undefined;
	const stopped = new AbortController();
	let failures = 0;
	let lastMs = 0;
	let busy = false;
	const check = async (): Promise<void> => {
		const started = performance.now();
		try {
			await channel.unary(health.check, emptyHealthCheckRequest(), {
				signal: stopped.signal,
				timeoutMs: Math.max(custom ?? timeoutMs, lastMs * 1.5),
			});
			failures = 0;
		} catch (thrown) {
			failures += 1;
			if (!stopped.signal.aborted && failures >= (custom === undefined ? maxFailures : 1)) {
				options.onDead(wrap(thrown, "session healthcheck failed fatally", { code: "unavailable" }));
			}
		}
		lastMs = performance.now() - started;
	};
	const timer = setInterval(() => {
		if (!busy) {
			busy = true;
			void check().finally(() => {
				busy = false;
			});
		}
	}, custom ?? intervalMs);
	timer.unref();
	return () => {
		clearInterval(timer);
		stopped.abort();
	};
}
