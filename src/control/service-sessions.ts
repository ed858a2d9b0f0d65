import type { MessageStream, ServerCall } from "../api/grpc.ts";
import type { BytesMessage, TunnelMessage } from "../api/services/bytes-message.ts";
import { canceled, SlipwayError } from "../errors/errors.ts";
import type { Session } from "../session/session.ts";
import type { OpenSession } from "./service.ts";

/** Clients that are connected, by the id of their session. */
export interface SessionRegistry {
	/** Serves `Control.Session`: until the client or the connection ends it. */
	serve(stream: MessageStream<TunnelMessage, BytesMessage>, call: ServerCall): Promise<void>;
	/**
	 * A client opens its session and asks to build at the same time, so that either may come first. Throws `unknown` with
	 * BuildKit's message when it does not come.
	 */
	find(id: string, options: { readonly signal: AbortSignal; readonly timeoutMs?: number }): Promise<Session>;
}

/** How long BuildKit waits. */
const defaultTimeoutMs = 5000;

export function createSessionRegistry(open: OpenSession): SessionRegistry {
	const sessions = new Map<string, Session>();
	const waiting = new Set<() => void>();
	return {
		async serve(stream, call) {
			await using session = await open(stream, call);
			if (session.id === "") {
				throw new SlipwayError("invalid-argument", "a session has no id");
			}
			sessions.set(session.id, session);
			for (const wake of [...waiting]) {
				wake();
			}
			try {
				await aborted(session.closed, call.signal);
			} finally {
				if (sessions.get(session.id) === session) {
					sessions.delete(session.id);
				}
			}
		},
		async find(text, { signal, timeoutMs = defaultTimeoutMs }) {
			// A prefix keeps steps of different contexts apart; the session is what follows.
			const id = /^[^:]*:(.+)$/s.exec(text)?.[1] ?? text;
			const deadline = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
			for (;;) {
				const session = sessions.get(id);
				if (session !== undefined && !session.closed.aborted) {
					return session;
				}
				if (signal.aborted) {
					throw canceled(signal.reason);
				}
				if (deadline.aborted) {
					throw new SlipwayError("unknown", `no active session for ${id}: context deadline exceeded`);
				}
				await new Promise<void>((resolve) => {
					const wake = (): void => {
						waiting.delete(wake);
						deadline.removeEventListener("abort", wake);
						resolve();
					};
					waiting.add(wake);
					deadline.addEventListener("abort", wake);
				});
			}
		},
	};
}

async function aborted(...signals: readonly AbortSignal[]): Promise<void> {
	const any = AbortSignal.any([...signals]);
	if (!any.aborted) {
		await new Promise((resolve) => any.addEventListener("abort", resolve, { once: true }));
	}
}
