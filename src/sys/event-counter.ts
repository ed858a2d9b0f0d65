import { cFunction, check, closeDescriptor } from "./ffi.ts";

const eventfd = cFunction<[number, number]>("eventfd", "int", ["uint", "int"]);
const readCall = cFunction<[number, BigUint64Array, number]>("read", "long", ["int", "void *", "size_t"]);
const closeOnExecNonBlocking = 0o2000000 | 0o4000;

/** A counter that the kernel adds to, eventfd(2). */
export interface EventCounter extends Disposable {
	readonly fd: number;
	/** How often since the last call. */
	take(): number;
}

export function createEventCounter(): EventCounter {
	const fd = check(eventfd(0, closeOnExecNonBlocking), () => "eventfd");
	let open = true;
	return {
		fd,
		take() {
			const value = new BigUint64Array(1);
			return readCall(fd, value, 8) === 8 ? Number(value[0]) : 0;
		},
		[Symbol.dispose]() {
			if (open) {
				open = false;
				closeDescriptor(fd);
			}
		},
	};
}
