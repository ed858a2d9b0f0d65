import { fileType, typeMask } from "./tree-state.ts";

/**
 * File modes as Go's `os.FileMode` has them, which is what travels in fsutil's packets: permissions in the low nine bits, types
 * and the special bits from the top down. They are not the kernel's `st_mode`.
 */
const goMode = {
	directory: 0x8000_0000,
	symlink: 0x0800_0000,
	device: 0x0400_0000,
	fifo: 0x0200_0000,
	socket: 0x0100_0000,
	setuid: 0x0080_0000,
	setgid: 0x0040_0000,
	character: 0x0020_0000,
	sticky: 0x0010_0000,
	irregular: 0x0008_0000,
} as const;

const goTypeMask =
	goMode.directory |
	goMode.symlink |
	goMode.device |
	goMode.fifo |
	goMode.socket |
	goMode.character |
	goMode.irregular;

/** Go's mode (as an unsigned number) of a kernel's mode. A socket travels as an empty file, as fsutil sends it. */
export function toGoMode(mode: number): number {
	let bits = mode & 0o777;
	if ((mode & 0o4000) !== 0) {
		bits |= goMode.setuid;
	}
	if ((mode & 0o2000) !== 0) {
		bits |= goMode.setgid;
	}
	if ((mode & 0o1000) !== 0) {
		bits |= goMode.sticky;
	}
	switch (mode & typeMask) {
		case fileType.directory:
			bits |= goMode.directory;
			break;
		case fileType.symlink:
			bits |= goMode.symlink;
			break;
		case fileType.character:
			bits |= goMode.device | goMode.character;
			break;
		case fileType.block:
			bits |= goMode.device;
			break;
		case fileType.fifo:
			bits |= goMode.fifo;
			break;
	}
	return bits >>> 0;
}

/** The kernel's mode of Go's; undefined for a type that no file of Linux has, or for two types at once. */
export function fromGoMode(bits: number): number | undefined {
	const permissions =
		(bits & 0o777) |
		((bits & goMode.setuid) !== 0 ? 0o4000 : 0) |
		((bits & goMode.setgid) !== 0 ? 0o2000 : 0) |
		((bits & goMode.sticky) !== 0 ? 0o1000 : 0);
	switch ((bits & goTypeMask) >>> 0) {
		case 0:
			return permissions | fileType.file;
		case goMode.directory:
			return permissions | fileType.directory;
		case goMode.symlink:
			return permissions | fileType.symlink;
		case goMode.device:
			return permissions | fileType.block;
		case goMode.device + goMode.character:
			return permissions | fileType.character;
		case goMode.fifo:
			return permissions | fileType.fifo;
		default:
			return undefined;
	}
}
