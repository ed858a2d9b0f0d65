import type { ClientSessionOptions, Http2Session, ServerSessionOptions } from "node:http2";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";

/** What both ends set on a connection. */

/** Room for what is under way, of one stream and of all: the product of a fast link's speed and delay. */
const streamWindowBytes = 4 << 20;
const connectionWindowBytes = 16 << 20;

/** As grpc-go takes them: include patterns and session methods come as headers, one for each. */
const maxHeaderBytes = 16 << 20;
const maxHeaderPairs = 65_536;

export const sessionOptions: Pick<
	ServerSessionOptions & ClientSessionOptions,
	"settings" | "maxSessionMemory" | "maxHeaderListPairs" | "maxSendHeaderBlockLength"
> = {
	settings: {
		initialWindowSize: streamWindowBytes,
		maxFrameSize: 128 << 10,
		maxHeaderListSize: maxHeaderBytes,
		enablePush: false,
	},
	// In MB; Node's 10 would refuse streams while a few large transfers are under way.
	maxSessionMemory: 1024,
	maxHeaderListPairs: maxHeaderPairs,
	maxSendHeaderBlockLength: maxHeaderBytes,
};

/** The longest time that a timer of Node can hold. */
export const maxTimerMs: number = 2_147_483_647;

/** So that a machine that is gone, or a network, is noticed; as Go's listeners and dialers do. */
const keepAliveMs = 15_000;

/** For sockets; a tunnel notices by itself. */
export function keepAlive(connection: Duplex): void {
	if (connection instanceof Socket) {
		connection.setKeepAlive(true, keepAliveMs);
	}
}

/** HTTP/2's own window of a connection, 64 KB, would be the limit of all its streams together. */
export function widenConnection(session: Http2Session): void {
	if (!session.destroyed) {
		session.setLocalWindowSize(connectionWindowBytes);
	}
}
