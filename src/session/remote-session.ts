import type { Channel, MessageStream, Metadata } from "../api/grpc.ts";
import { auth } from "../api/services/auth.ts";
import type { BytesMessage, TunnelMessage } from "../api/services/bytes-message.ts";
import { content } from "../api/services/content.ts";
import { fileSend, fileSync } from "../api/services/filesync.ts";
import { policyVerifier } from "../api/services/policy-verifier.ts";
import { sessionExporter } from "../api/services/session-exporter.ts";
import { upload } from "../api/services/upload.ts";
import { tracedChannel } from "../api/traced-channel.ts";
import type { ThreadPool } from "../async/pool.ts";
import { canceled, SlipwayError } from "../errors/errors.ts";
import { monitorHealth } from "./health-monitor.ts";
import { openInnerChannel } from "./inner-channel.ts";
import { createRemoteAuth } from "./remote-auth.ts";
import type { RemoteCalls } from "./remote-calls.ts";
import { RemoteContent } from "./remote-content.ts";
import { createRemoteExporters, createRemotePolicy, createRemoteUploads } from "./remote-extras.ts";
import { syncFiles } from "./remote-files.ts";
import { remoteOutput } from "./remote-output.ts";
import { createRemoteSecrets } from "./remote-secrets.ts";
import { createRemoteSsh } from "./remote-ssh.ts";
import type { Session } from "./session.ts";
import { metadataValue, sessionKeys, storeKey } from "./session-metadata.ts";

export interface RemoteSessionOptions {
	/** Of the call of `Control.Session`: who the client is and what it offers. */
	readonly metadata: Metadata;
	/** Threads that write what the client sends. */
	readonly pool: ThreadPool;
}

/** A client at the other end of a tunnel. Disposing it ends all calls to the client and closes the tunnel. */
export interface RemoteSession extends Session, AsyncDisposable {
	/** As the client calls itself; may be empty. */
	readonly name: string;
	/** Whether the client offers a method, `/package.Service/Method` in any case. */
	supports(method: string): boolean;
}

/**
 * The session of a call of `Control.Session`: the daemon is the client of what is inside. The handler of the call answers with headers at once,
 * registers the session, and resolves when `closed` fires.
 */
export function acceptSession(
	stream: MessageStream<TunnelMessage, BytesMessage>,
	options: RemoteSessionOptions,
): RemoteSession {
	return openRemoteSession({ ...options, channel: openInnerChannel(stream) });
}

/** The same over a connection that was made otherwise. The channel is the session's from then on. */
export function openRemoteSession(
	options: RemoteSessionOptions & { readonly channel: Channel },
): RemoteSession {
	const { metadata, pool } = options;
	const channel = tracedChannel(options.channel, metadata);
	const id = metadataValue(metadata, sessionKeys.id) ?? "";
	const offered = new Set((metadata[sessionKeys.method] ?? []).map((path) => path.toLowerCase()));
	const closed = new AbortController();
	const close = (reason: SlipwayError): void => {
		if (!closed.signal.aborted) {
			closed.abort(reason);
		}
	};
	if (channel.closed.aborted) {
		close(gone(id, channel.closed.reason));
	}
	channel.closed.addEventListener("abort", () => close(gone(id, channel.closed.reason)), { once: true });
	const calls: RemoteCalls = {
		channel,
		closed: closed.signal,
		supports: ({ path }) => offered.has(path.toLowerCase()),
	};
	const stopMonitor = monitorHealth(options.channel, {
		customTimeout: metadataValue(metadata, sessionKeys.healthTimeout),
		onDead: (error) => {
			close(error);
			void channel[Symbol.asyncDispose]();
		},
	});
	closed.signal.addEventListener("abort", stopMonitor, { once: true });
	return {
		id,
		name: metadataValue(metadata, sessionKeys.name) ?? "",
		sharedKey: metadataValue(metadata, sessionKeys.sharedKey) ?? "",
		closed: closed.signal,
		supports: (method) => offered.has(method.toLowerCase()),
		files: {
			async sync(request, syncOptions) {
				if (!calls.supports(fileSync.diffCopy)) {
					throw new SlipwayError("not-found", "no local sources enabled");
				}
				return syncFiles(calls, pool, request, syncOptions);
			},
		},
		auth: createRemoteAuth(calls, calls.supports(auth.fetchToken) && calls.supports(auth.getTokenAuthority)),
		secrets: createRemoteSecrets(calls),
		ssh: createRemoteSsh(calls),
		contentStore: (storeId) =>
			calls.supports(content.read) ? new RemoteContent(calls, storeKey(storeId)) : undefined,
		contentWriter: (storeId) =>
			calls.supports(content.write) ? new RemoteContent(calls, storeKey(storeId)) : undefined,
		output: (index) =>
			calls.supports(fileSend.diffCopy) || calls.supports(content.write)
				? remoteOutput(calls, index)
				: undefined,
		...(calls.supports(upload.pull) ? { uploads: createRemoteUploads(calls) } : {}),
		...(calls.supports(sessionExporter.findExporters) ? { exporters: createRemoteExporters(calls) } : {}),
		...(calls.supports(policyVerifier.checkPolicy) ? { policy: createRemotePolicy(calls) } : {}),
		async [Symbol.asyncDispose]() {
			close(canceled());
			await channel[Symbol.asyncDispose]();
		},
	};
}

function gone(id: string, reason: unknown): SlipwayError {
	return new SlipwayError("canceled", `session ${id} is closed`, { cause: reason });
}
