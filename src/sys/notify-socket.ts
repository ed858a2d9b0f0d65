import { closeSync } from "node:fs";
import { cFunction, check, errnoNumber, sysError } from "./ffi.ts";

const socket = cFunction<[number, number, number]>("socket", "int", ["int", "int", "int"]);
const sendto = cFunction<[number, Uint8Array, number, number, Uint8Array, number]>("sendto", "long", [
	"int",
	"void *",
	"size_t",
	"int",
	"void *",
	"uint",
]);

const unixFamily = 1;
const datagramCloseOnExec = 2 | 0o2000000;
const noSignal = 0x4000;
const maxPathBytes = 107;

/** One datagram to a unix socket, which Node cannot send. A path that begins with `@` is in Linux's abstract namespace. */
export function notifySocket(path: string, message: string): void {
	const name = Buffer.from(path);
	if (name.length > maxPathBytes || name.includes(0)) {
		throw sysError(`socket ${path}`, errnoNumber.EINVAL);
	}
	const address = new Uint8Array(2 + maxPathBytes + 1);
	new DataView(address.buffer).setUint16(0, unixFamily, true);
	address.set(name, 2);
	const isAbstract = path.startsWith("@");
	if (isAbstract) {
		address[2] = 0;
	}
	const fd = check(socket(unixFamily, datagramCloseOnExec, 0), () => "socket");
	try {
		const bytes = Buffer.from(message);
		const addressBytes = 2 + name.length + (isAbstract ? 0 : 1);
		check(sendto(fd, bytes, bytes.length, noSignal, address, addressBytes), () => `sendto ${path}`);
	} finally {
		closeSync(fd);
	}
}
