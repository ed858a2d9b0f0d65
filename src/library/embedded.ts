import { duplexPair } from "node:stream";
import type { Client } from "../client/client.ts";
import { clientOn } from "../client/connect.ts";
import { type Entitlement, entitlements } from "../control/control.ts";
import { builderVersion } from "../daemon/builder-version.ts";
import { parseConfig } from "../daemon/config-file.ts";
import { startDaemon } from "../daemon/daemon.ts";
import { defaultRoot } from "../daemon/default-root.ts";
import { mergeConfig } from "../daemon/merge-config.ts";
import { SlipwayError } from "../errors/errors.ts";
import { createLocalSession } from "../session/local-session.ts";
import type { CreateEngineOptions, Solve } from "./index.ts";

/** An engine in this process. Builds call it directly; what is rarely asked goes through its API, over a connection in memory. */
export async function embedEngine(options: CreateEngineOptions): Promise<{
	readonly client: Client;
	readonly solve: Solve;
	readonly close: () => Promise<void>;
}> {
	const root = options.root ?? defaultRoot(process.env);
	const config = mergeConfig(
		parseConfig("", ""),
		{
			root,
			addresses: [],
			allowPlainTcp: false,
			entitlements,
			...(options.snapshotter === undefined ? {} : { snapshotter: options.snapshotter }),
			...(options.runtime === undefined ? {} : { binary: options.runtime }),
		},
		root,
	);
	const onWarning = options.onWarning ?? ((message) => void process.stderr.write(`WARNING: ${message}\n`));
	await using stack = new AsyncDisposableStack();
	const daemon = stack.use(
		await startDaemon(config, {
			env: process.env,
			logger: {
				isEnabled: (level) => level === "warning",
				log: (level, message) => void (level === "warning" && onWarning(message)),
			},
			version: builderVersion,
			drainMs: 0,
		}),
	);
	const [near, far] = duplexPair();
	void daemon.api.accept(far);
	const client = stack.use(clientOn(near));
	const held = stack.move();
	return {
		client,
		solve: async (request, { lends, progress, signal }) => {
			await using session = createLocalSession(lends);
			return await daemon.api.build(
				{ ...request, entitlements: request.entitlements.map(entitlement) },
				{ session, progress, signal },
			);
		},
		close: () => held.disposeAsync(),
	};
}

function entitlement(name: string): Entitlement {
	const known = entitlements.find((each) => each === name);
	if (known === undefined) {
		throw new SlipwayError(
			"invalid-argument",
			`invalid entitlement: ${name}; one of ${entitlements.join(", ")}`,
		);
	}
	return known;
}
