import { type ErrorCode, SlipwayError, toError } from "../errors/errors.ts";
import { http2Code, maxWindow } from "./http2-frames.ts";

/** Windows of flow control never grow beyond what the protocol can say (RFC 9113, section 6.9.1). */
export function checkWindow(bytes: number): void {
	if (bytes > maxWindow) {
		throw new SlipwayError("resource-exhausted", `a window of ${bytes} bytes`);
	}
}

/** A mistake of the other side; what it ends is the thrower's business. */
export function protocolError(message: string): SlipwayError {
	return new SlipwayError("internal", message);
}

/** The connection is gone. */
export function lost(cause: unknown): SlipwayError {
	return new SlipwayError(
		"unavailable",
		cause === undefined ? "connection closed" : `connection closed: ${toError(cause).message}`,
		{ cause },
	);
}

/** Such a call was never begun at the other side, and may be tried again. */
export function goingAway(code: number = http2Code.none): SlipwayError {
	const why = code === http2Code.none ? "" : ` (GOAWAY with error code ${code})`;
	return new SlipwayError("unavailable", `the client takes no more calls on this connection${why}`);
}

/** What a call ends with that the other side has reset. */
export function resetError(code: number): SlipwayError {
	const [name, errorCode] = resetCodes[code] ?? [`${code}`, "unknown"];
	return new SlipwayError(errorCode, `stream terminated by RST_STREAM with error code: ${name}`);
}

/** Section 7, and what gRPC makes of them. */
const resetCodes: Readonly<Record<number, readonly [string, ErrorCode]>> = {
	0: ["NO_ERROR", "internal"],
	1: ["PROTOCOL_ERROR", "internal"],
	2: ["INTERNAL_ERROR", "internal"],
	3: ["FLOW_CONTROL_ERROR", "resource-exhausted"],
	5: ["STREAM_CLOSED", "internal"],
	6: ["FRAME_SIZE_ERROR", "internal"],
	7: ["REFUSED_STREAM", "unavailable"],
	8: ["CANCEL", "canceled"],
	9: ["COMPRESSION_ERROR", "internal"],
	11: ["ENHANCE_YOUR_CALM", "resource-exhausted"],
};
