import { SlipwayError } from "../errors/errors.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { fsPath } from "../sys/byte-names.ts";
import type { Timestamp } from "../sys/sys.ts";
import { setXattr } from "../sys/xattr.ts";
import type { TarHeader } from "./archive.ts";
import { statIfAny } from "./walk.ts";
import { xattrsOf } from "./xattr-records.ts";

/** What of an entry's metadata its file gets. */
export interface MetadataOptions {
	/** Every entry's owner instead of the archive's; `ignore` leaves them to this process's user. */
	readonly owner: { readonly uid: number; readonly gid: number } | "archive" | "ignore";
	/** Also lets pass that attributes are forbidden (EPERM), as ADD does. */
	readonly bestEffortXattrs: boolean;
}

export type Times = readonly [accessed: Timestamp, modified: Timestamp];

/** Undefined: the owner is left as it is. Throws `invalid-argument` for ids that no file can have. */
export function ownerOf(
	header: TarHeader,
	{ owner }: MetadataOptions,
): { readonly uid: number; readonly gid: number } | undefined {
	if (owner === "ignore") {
		return undefined;
	}
	const { uid, gid } = owner === "archive" ? header : owner;
	// The largest id is the kernel's word for "leave as it is".
	if (uid < 0 || uid >= 0xffff_ffff || gid < 0 || gid >= 0xffff_ffff) {
		throw new SlipwayError("invalid-argument", `owner ${uid}:${gid} is out of range`);
	}
	return { uid, gid };
}

export function setXattrs(path: ByteString, header: TarHeader, options: MetadataOptions): void {
	if (header.records.size === 0) {
		return;
	}
	for (const [name, value] of xattrsOf(header)) {
		// Those would steer the overlay or the security of the machine; no layer may set them.
		if (name.startsWith("trusted.") || name.startsWith("user.overlay.")) {
			continue;
		}
		try {
			setXattr(fsPath(path), name, value);
		} catch (thrown) {
			if (!mayLackXattr(thrown, path, name, options)) {
				throw thrown;
			}
		}
	}
}

/** File systems without attributes are fine, and so is that only files and folders may have those of users. */
function mayLackXattr(
	thrown: unknown,
	path: ByteString,
	name: string,
	{ bestEffortXattrs }: MetadataOptions,
): boolean {
	const [detail] = thrown instanceof SlipwayError ? thrown.details : [];
	const errno = detail?.kind === "errno" ? detail.errno : "";
	if (errno === "ENOTSUP" || errno === "EOPNOTSUPP") {
		return true;
	}
	if (errno !== "EPERM") {
		return false;
	}
	const stats = statIfAny(path);
	const isSpecial = stats !== undefined && !stats.isFile() && !stats.isDirectory();
	return bestEffortXattrs || (name.startsWith("user.") && isSpecial);
}

const epoch: Timestamp = { seconds: 0, nanoseconds: 0 };
/** Go's times in nanoseconds end here, in the year 2262. */
const lastSecond = 9_223_372_036;

/** A time out of bounds becomes 1970; a file is never used before it was changed. */
export function timesOf(header: TarHeader): Times {
	const { modified, accessed } = header;
	const isLater =
		accessed !== undefined &&
		(accessed.seconds > modified.seconds ||
			(accessed.seconds === modified.seconds && accessed.nanoseconds > modified.nanoseconds));
	return [bounded(isLater ? accessed : modified), bounded(modified)];
}

function bounded(time: Timestamp): Timestamp {
	return time.seconds < 0 || time.seconds >= lastSecond ? epoch : time;
}
