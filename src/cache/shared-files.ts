/**
 * Files that others have a name of too, as the database keeps them: a measured record of 20,000 such files has some 50 KB. Inode
 * numbers rise, each as the difference to the one before, and behind each the file's blocks of 512 bytes; both as LEB128.
 * In memory: inode number and bytes, in turn, as in `TreesUsage`.
 */
export function encodeSharedFiles(files: Float64Array): Uint8Array {
	const order = Array.from({ length: files.length / 2 }, (_, index) => index * 2);
	order.sort((a, b) => (files[a] ?? 0) - (files[b] ?? 0));
	const bytes: number[] = [];
	const put = (value: number): void => {
		let rest = value;
		for (; rest >= 128; rest = Math.floor(rest / 128)) {
			bytes.push((rest % 128) | 128);
		}
		bytes.push(rest);
	};
	let last = 0;
	for (const at of order) {
		const inode = files[at] ?? 0;
		put(inode - last);
		put((files[at + 1] ?? 0) / 512);
		last = inode;
	}
	return Uint8Array.from(bytes);
}

export function decodeSharedFiles(bytes: Uint8Array): Float64Array {
	const files: number[] = [];
	let inode = 0;
	let value = 0;
	let unit = 1;
	for (const byte of bytes) {
		value += (byte & 127) * unit;
		unit *= 128;
		if (byte < 128) {
			if (files.length % 2 === 0) {
				inode += value;
				files.push(inode);
			} else {
				files.push(value * 512);
			}
			value = 0;
			unit = 1;
		}
	}
	return Float64Array.from(files);
}
