import { endianness } from "node:os";
import { errno, errnoNumber, ffi, sysError } from "./ffi.ts";

/**
 * A descriptor that another process sends over a unix socket (`SCM_RIGHTS`, unix(7)), which no stream of Node receives. Layouts are
 * those of 64-bit Linux.
 */

type Recvmsg = (fd: number, message: object, flags: number) => number;
let recvmsg: Recvmsg | undefined;

function bind(): Recvmsg {
	const { koffi, libc } = ffi();
	const vector = koffi.struct("slipway_iovec", { base: "void *", length: "size_t" });
	const message = koffi.struct("slipway_msghdr", {
		name: "void *",
		nameLength: "uint32_t",
		vectors: koffi.pointer(vector),
		vectorCount: "size_t",
		control: "void *",
		controlLength: "size_t",
		flags: "int",
	});
	return libc.func("recvmsg", "long", ["int", koffi.pointer(message), "int"]) as unknown as Recvmsg;
}

const dontWait = 0x40;
const closeOnExec = 0x40000000;
const solSocket = 1;
const scmRights = 1;
/** `struct cmsghdr` with one descriptor. */
const headerBytes = 16;
const controlBytes = 24;
/** What comes with a descriptor is its name, for people. */
const dataBytes = 4096;

/** Undefined while there is nothing; `closed` when the other side has closed without sending one. Owned by the caller. */
export function receiveDescriptor(socket: number): number | "closed" | undefined {
	recvmsg ??= bind();
	const control = new Uint8Array(controlBytes);
	const received = recvmsg(
		socket,
		{
			name: null,
			nameLength: 0,
			vectors: { base: new Uint8Array(dataBytes), length: dataBytes },
			vectorCount: 1,
			control,
			controlLength: controlBytes,
			flags: 0,
		},
		dontWait | closeOnExec,
	);
	if (received < 0) {
		const number = errno();
		if (number === errnoNumber.EAGAIN || number === errnoNumber.EINTR) {
			return undefined;
		}
		throw sysError("recvmsg", number);
	}
	const view = new DataView(control.buffer);
	const little = endianness() === "LE";
	const isDescriptor = view.getInt32(8, little) === solSocket && view.getInt32(12, little) === scmRights;
	if (!isDescriptor) {
		return received === 0 ? "closed" : undefined;
	}
	return view.getInt32(headerBytes, little);
}
