import { duplexPair } from "node:stream";
import type { Client } from "../client/client.ts";
import { clientOn } from "../client/connect.ts";
import { type Entitlement, entitlements } from "../control/control.ts";
import { openEngine } from "../daemon/engine.ts";
import { createLocalSession } from "../session/local-session.ts";
import type { CreateEngineOptions, Solve } from "./index.ts";

/** An engine in this process. Builds call it directly; what is rarely asked goes through its API, over a connection in memory. */
export async function embedEngine(options: CreateEngineOptions): Promise<{
	readonly client: Client;
	readonly solve: Solve;
	readonly close: () => Promise<void>;
}> {
	throw new Error(`${duplexPair} ${clientOn} ${entitlements} ${openEngine} ${createLocalSession} ${options}`);
}
export type { Entitlement };
