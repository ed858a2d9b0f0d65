import type { Method } from "../grpc.ts";
import { rawCodec } from "../raw-codec.ts";
import { type BytesMessage, bytesMessage } from "./bytes-message.ts";
import { type Packet, packet } from "./packet.ts";

/** `moby.filesync.v1.FileSync`: the client's directories. */
export const fileSync: {
	readonly diffCopy: Method<"bidi", Packet, Packet>;
	readonly tarStream: Method<"bidi", Packet, Packet>;
} = {
	diffCopy: { kind: "bidi", path: "/moby.filesync.v1.FileSync/DiffCopy", request: packet, response: packet },
	tarStream: {
		kind: "bidi",
		path: "/moby.filesync.v1.FileSync/TarStream",
		request: packet,
		response: packet,
	},
};

/**
 * `moby.filesync.v1.FileSend`: outputs to the client. One method with two forms, which depends on the output that
 * the metadata names.
 */
export const fileSend: {
	readonly diffCopy: Method<"bidi", BytesMessage, BytesMessage>;
	/** The same path for a directory. */
	readonly diffCopyPackets: Method<"bidi", Packet, Packet>;
	/** The same path, messages as they are, for a server that learns the form from the metadata. */
	readonly diffCopyRaw: Method<"bidi", Uint8Array, Uint8Array>;
} = {
	diffCopy: {
		kind: "bidi",
		path: "/moby.filesync.v1.FileSend/DiffCopy",
		request: bytesMessage,
		response: bytesMessage,
	},
	diffCopyPackets: {
		kind: "bidi",
		path: "/moby.filesync.v1.FileSend/DiffCopy",
		request: packet,
		response: packet,
	},
	diffCopyRaw: {
		kind: "bidi",
		path: "/moby.filesync.v1.FileSend/DiffCopy",
		request: rawCodec,
		response: rawCodec,
	},
};
