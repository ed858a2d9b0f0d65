import type { MessageStream } from "../api/grpc.ts";
import type { Packet } from "../api/services/packet.ts";

/** Two ends of a stream in memory, with a little room in each direction. */
export function packetPair(): [Ending, Ending] {
	const [toA, toB] = [queue(), queue()];
	return [end(toA, toB), end(toB, toA)];
}

export interface Ending extends MessageStream<Packet, Packet> {
	/** No more packets from this end. */
	close(): void;
	/** The other end's reading fails. */
	fail(error: Error): void;
}

interface Queue extends AsyncIterable<Packet> {
	push(packet: Packet): Promise<void> | undefined;
	close(error?: Error): void;
}

const room = 64 << 10;

function end(incoming: Queue, outgoing: Queue): Ending {
	return {
		send: (packet) => outgoing.push(packet),
		close: () => outgoing.close(),
		fail: (error) => outgoing.close(error),
		[Symbol.asyncIterator]: () => incoming[Symbol.asyncIterator](),
	};
}

function queue(): Queue {
	const packets: Packet[] = [];
	let held = 0;
	let closed: { readonly error: Error | undefined } | undefined;
	let arrived: () => void = () => {};
	let drained = Promise.withResolvers<void>();
	return {
		push(packet) {
			packets.push(packet);
			held += sizeOf(packet);
			arrived();
			return held > room ? drained.promise : undefined;
		},
		close(error) {
			closed ??= { error };
			arrived();
		},
		async *[Symbol.asyncIterator]() {
			for (;;) {
				const next = packets.shift();
				if (next !== undefined) {
					held -= sizeOf(next);
					if (held <= room) {
						drained.resolve();
						drained = Promise.withResolvers();
					}
					yield next;
				} else if (closed !== undefined) {
					if (closed.error !== undefined) {
						throw closed.error;
					}
					return;
				} else {
					await new Promise<void>((resolve) => {
						arrived = resolve;
					});
				}
			}
		},
	};
}

function sizeOf(packet: Packet): number {
	return packet.kind === "data" ? 16 + packet.data.length : 100;
}
