import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Served, startServer } from "../api/connection.fixture.ts";
import { emptySolveRequest, type SolveRequest } from "../api/generated/control.ts";
import type { CacheManager, UsageRecord } from "../cache/cache.ts";
import { openLocalContentStore } from "../content/local.ts";
import { type Database, openDatabase } from "../database/database.ts";
import type { Session } from "../session/session.ts";
import type { BuildOptions, BuildRequest, BuildResponse } from "./control.ts";
import type { History, HistoryOptions } from "./history.ts";
import { openHistory } from "./history-queue.ts";
import type { ControlService } from "./service.ts";
import { createControlService } from "./service-methods.ts";
import { noSession } from "./service-no-session.ts";

/** A control service over memory whose builds are functions of the test. */
export interface ServiceFixture extends AsyncDisposable {
	readonly served: Served;
	readonly service: ControlService;
	readonly history: History;
	readonly database: Database;
	readonly warnings: string[];
}

export interface ServiceFixtureOptions {
	readonly build?: (request: BuildRequest, options: BuildOptions) => Promise<BuildResponse>;
	readonly usage?: readonly UsageRecord[];
	readonly history?: HistoryOptions;
	/** What is kept between two services. */
	readonly kept?: { readonly directory: string; readonly database: Database };
}

export const emptyResponse: BuildResponse = { exporterResponse: {}, metadata: {} };

export async function startService(options: ServiceFixtureOptions = {}): Promise<ServiceFixture> {
	await using stack = new AsyncDisposableStack();
	const directory = options.kept?.directory ?? mkdtempSync(join(tmpdir(), "slipway-service-"));
	const database = options.kept?.database ?? openDatabase(":memory:");
	if (options.kept === undefined) {
		stack.defer(() => {
			database[Symbol.dispose]();
			rmSync(directory, { recursive: true });
		});
	}
	const warnings: string[] = [];
	const signal = new AbortController().signal;
	const history = await openHistory({
		...options.history,
		database,
		root: join(directory, "history"),
		warn: (message) => warnings.push(message),
	});
	const content = await openLocalContentStore({ root: join(directory, "content"), signal });
	const service = stack.use(
		createControlService({
			controller: { build: options.build ?? (async () => emptyResponse) },
			history,
			content,
			cache: fakeCache(options.usage ?? []),
			openSession: async (stream, { metadata, signal: closed }) => {
				const [id = ""] = metadata["x-docker-expose-session-uuid"] ?? [];
				void (async () => {
					for await (const _ of stream) {
						// Nobody speaks inside.
					}
				})().catch(() => {});
				const session: Session & AsyncDisposable = {
					...noSession,
					id,
					closed,
					async [Symbol.asyncDispose]() {},
				};
				return session;
			},
			worker: {
				id: "worker1",
				labels: new Map([["org.example", "yes"]]),
				platforms: () => [{ os: "linux", architecture: "amd64" }],
				gcPolicy: [],
				devices: () => [],
			},
			version: { package: "p", version: "v", revision: "r", dockerfileVersion: "d" },
			onBuildEnd: () => {},
			disk: () => ({ totalBytes: 1000, freeBytes: 100 }),
		}),
	);
	const served = stack.use(await startServer(service.methods));
	const held = stack.move();
	return {
		served,
		service,
		history,
		database,
		warnings,
		[Symbol.asyncDispose]: () => held.disposeAsync(),
	};
}

export function solveRequest(fields: Partial<SolveRequest>): SolveRequest {
	return { ...emptySolveRequest(), Frontend: "dockerfile.v0", ...fields };
}

/** Only usage and pruning. */
function fakeCache(records: readonly UsageRecord[]): CacheManager {
	const cache: Pick<CacheManager, "usage" | "prune"> = {
		usage: async () => records,
		async *prune({ matches, keepBytes }) {
			let used = records.reduce((sum, { bytes }) => sum + bytes, 0);
			for (const record of records) {
				if ((keepBytes === undefined || used > keepBytes) && matches?.(record) !== false) {
					used -= record.bytes;
					yield record;
				}
			}
		},
	};
	return cache as CacheManager;
}
