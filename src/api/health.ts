import { SlipwayError } from "../errors/errors.ts";
import { type HealthCheckResponse, HealthCheckResponse_ServingStatus } from "./generated/health.ts";
import type { ServedMethod } from "./grpc.ts";
import { serve } from "./grpc-server.ts";
import { health } from "./services/health.ts";

export type Serving = "serving" | "not-serving";

/** `grpc.health.v1.Health`. The service with the empty name is the server as a whole; it serves from the start. */
export interface Health {
	readonly methods: readonly ServedMethod[];
	set(service: string, status: Serving): void;
	/** Every service is `not-serving` from now on. */
	shutDown(): void;
}

const numbers: Readonly<Record<Serving, HealthCheckResponse["status"]>> = {
	serving: HealthCheckResponse_ServingStatus.SERVING,
	"not-serving": HealthCheckResponse_ServingStatus.NOT_SERVING,
};

export function createHealth(): Health {
	const statuses = new Map<string, Serving>([["", "serving"]]);
	const watchers = new Set<() => void>();
	let down = false;
	const statusOf = (service: string): HealthCheckResponse["status"] => {
		const status = statuses.get(service);
		return status === undefined ? HealthCheckResponse_ServingStatus.SERVICE_UNKNOWN : numbers[status];
	};
	const tell = (): void => {
		for (const watcher of watchers) {
			watcher();
		}
	};
	return {
		methods: [
			serve(health.check, async ({ service }) => {
				if (!statuses.has(service)) {
					throw new SlipwayError("not-found", "unknown service");
				}
				return { status: statusOf(service) };
			}),
			serve(health.list, async () => ({
				statuses: new Map([...statuses].map(([service, status]) => [service, { status: numbers[status] }])),
			})),
			serve(health.watch, async ({ service }, stream, { signal }) => {
				let sent: HealthCheckResponse["status"] | undefined;
				let changed = Promise.withResolvers<void>();
				const wake = () => changed.resolve();
				watchers.add(wake);
				signal.addEventListener("abort", wake);
				try {
					while (!signal.aborted) {
						changed = Promise.withResolvers();
						const status = statusOf(service);
						if (status !== sent) {
							sent = status;
							await stream.send({ status });
						}
						await changed.promise;
					}
				} finally {
					watchers.delete(wake);
				}
				throw new SlipwayError("canceled", "Stream has ended.");
			}),
		],
		set(service, status) {
			if (!down) {
				statuses.set(service, status);
				tell();
			}
		},
		shutDown() {
			down = true;
			for (const service of statuses.keys()) {
				statuses.set(service, "not-serving");
			}
			tell();
		},
	};
}
