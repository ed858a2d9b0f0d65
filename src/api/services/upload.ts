import type { Method } from "../grpc.ts";
import { type BytesMessage, bytesMessage } from "./bytes-message.ts";

/** `moby.upload.v1.Upload` */
export const upload: {
	readonly pull: Method<"bidi", BytesMessage, BytesMessage>;
} = {
	pull: { kind: "bidi", path: "/moby.upload.v1.Upload/Pull", request: bytesMessage, response: bytesMessage },
};
