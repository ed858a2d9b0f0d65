import type { Codec } from "./grpc.ts";

/** Messages as their bytes: for those that are encoded elsewhere, or whose form the method does not say. */
export const rawCodec: Codec<Uint8Array> = {
	encode: (bytes) => ({ finish: () => bytes }),
	parts: (body, reserved) => ({ head: new Uint8Array(reserved), body }),
	decode: (bytes) => bytes,
};
