import { SlipwayError } from "../errors/errors.ts";
import { cFunction, check, closeDescriptor, errno, errnoNumber, sysError } from "./ffi.ts";

/**
 * Netlink, netlink(7): questions and orders to the kernel's network as messages on a socket. Calls are synchronous, and a socket
 * belongs to the network namespace that the thread was in when it was opened.
 */

const socketCall = cFunction<[number, number, number]>("socket", "int", ["int", "int", "int"]);
const sendCall = cFunction<[number, Uint8Array, number, number]>("send", "long", [
	"int",
	"void *",
	"size_t",
	"int",
]);
const recvCall = cFunction<[number, Uint8Array, number, number]>("recv", "long", [
	"int",
	"void *",
	"size_t",
	"int",
]);

const afNetlink = 16;
const rawCloseOnExec = 3 | 0o2000000;

export const netlinkRoute = 0;
export const netlinkNetfilter = 12;

export const messageFlag = {
	request: 0x1,
	acknowledge: 0x4,
	replace: 0x100,
	exclusive: 0x200,
	create: 0x400,
	append: 0x800,
	dump: 0x300,
} as const;

const messageError = 2;
const messageDone = 3;
const headerBytes = 16;

export interface NetlinkMessage {
	readonly type: number;
	readonly flags: number;
	/** The family's own header and its attributes. */
	readonly body: Uint8Array;
}

export class NetlinkSocket implements Disposable {
	readonly #fd: number;
	#sequence = 0;
	#open = true;

	constructor(protocol: number) {
		this.#fd = check(socketCall(afNetlink, rawCloseOnExec, protocol), () => "open netlink socket");
	}

	/**
	 * Sends the messages in one go, and waits until each that asks to be acknowledged was. The first that the kernel refuses is
	 * thrown, with `what` in front.
	 */
	order(messages: readonly NetlinkMessage[], what: string): void {
		const waiting = new Set<number>();
		const packed = messages.map((message) => {
			this.#sequence += 1;
			if ((message.flags & messageFlag.acknowledge) !== 0) {
				waiting.add(this.#sequence);
			}
			return packMessage(message, this.#sequence);
		});
		this.#send(Buffer.concat(packed), what);
		let refused = 0;
		while (waiting.size > 0 && refused === 0) {
			for (const answer of this.#receive(what)) {
				if (answer.type === messageError) {
					waiting.delete(answer.sequence);
					refused ||= -new DataView(answer.body.buffer, answer.body.byteOffset).getInt32(0, true);
				}
			}
		}
		if (refused !== 0) {
			throw sysError(what, refused);
		}
	}

	/** Every answer to a question that asks for a dump. */
	dump(message: NetlinkMessage, what: string): readonly Uint8Array[] {
		this.#sequence += 1;
		this.#send(packMessage(message, this.#sequence), what);
		const found: Uint8Array[] = [];
		for (;;) {
			for (const answer of this.#receive(what)) {
				if (answer.type === messageDone) {
					return found;
				}
				if (answer.type === messageError) {
					const number = -new DataView(answer.body.buffer, answer.body.byteOffset).getInt32(0, true);
					throw sysError(what, number);
				}
				found.push(answer.body);
			}
		}
	}

	#send(bytes: Uint8Array, what: string): void {
		check(sendCall(this.#fd, bytes, bytes.length, 0), () => what);
	}

	#receive(
		what: string,
	): readonly { readonly type: number; readonly sequence: number; readonly body: Uint8Array }[] {
		const buffer = new Uint8Array(64 * 1024);
		let length: number;
		do {
			length = recvCall(this.#fd, buffer, buffer.length, 0);
		} while (length < 0 && errno() === errnoNumber.EINTR);
		check(length, () => what);
		const view = new DataView(buffer.buffer);
		const messages = [];
		for (let at = 0; at + headerBytes <= length; ) {
			const size = view.getUint32(at, true);
			if (size < headerBytes || at + size > length) {
				throw new SlipwayError("internal", `${what}: malformed netlink answer`);
			}
			messages.push({
				type: view.getUint16(at + 4, true),
				sequence: view.getUint32(at + 8, true),
				body: buffer.subarray(at + headerBytes, at + size),
			});
			at += aligned(size);
		}
		return messages;
	}

	[Symbol.dispose](): void {
		if (this.#open) {
			this.#open = false;
			closeDescriptor(this.#fd);
		}
	}
}

function packMessage({ type, flags, body }: NetlinkMessage, sequence: number): Uint8Array {
	const bytes = new Uint8Array(aligned(headerBytes + body.length));
	const view = new DataView(bytes.buffer);
	view.setUint32(0, headerBytes + body.length, true);
	view.setUint16(4, type, true);
	view.setUint16(6, flags, true);
	view.setUint32(8, sequence, true);
	bytes.set(body, headerBytes);
	return bytes;
}

function aligned(size: number): number {
	return (size + 3) & ~3;
}

/** One attribute: its length, its type, its value, padded to four bytes. */
export function attribute(type: number, value: Uint8Array | string): Uint8Array {
	// Text has a closing NUL.
	const bytes = typeof value === "string" ? new TextEncoder().encode(`${value}\0`) : value;
	const packed = new Uint8Array(aligned(4 + bytes.length));
	const view = new DataView(packed.buffer);
	view.setUint16(0, 4 + bytes.length, true);
	view.setUint16(2, type, true);
	packed.set(bytes, 4);
	return packed;
}

const nestedFlag = 0x8000;

/** An attribute that is made of attributes. */
export function nested(type: number, ...attributes: readonly Uint8Array[]): Uint8Array {
	return attribute(type | nestedFlag, Buffer.concat(attributes));
}

/** Attributes of a body by type; of several of one type the last. */
export function readAttributes(bytes: Uint8Array): ReadonlyMap<number, Uint8Array> {
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
	const found = new Map<number, Uint8Array>();
	for (let at = 0; at + 4 <= bytes.length; ) {
		const size = view.getUint16(at, true);
		if (size < 4 || at + size > bytes.length) {
			break;
		}
		found.set(view.getUint16(at + 2, true) & 0x3fff, bytes.subarray(at + 4, at + size));
		at += aligned(size);
	}
	return found;
}

/** A number of 32 bits in this machine's order, as rtnetlink has them; all that we run on are little endian. */
export function u32(value: number): Uint8Array {
	const bytes = new Uint8Array(4);
	new DataView(bytes.buffer).setUint32(0, value, true);
	return bytes;
}

/** A number of 32 bits in network order, as netfilter has them. */
export function be32(value: number): Uint8Array {
	const bytes = new Uint8Array(4);
	new DataView(bytes.buffer).setUint32(0, value, false);
	return bytes;
}
