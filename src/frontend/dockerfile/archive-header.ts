const magics: readonly (readonly number[])[] = [
	[0x42, 0x5a, 0x68],
	[0x1f, 0x8b, 0x08],
	[0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00],
];

const blockSize = 512;

/** Whether a file that begins so is a build context in an archive: bzip2, gzip, xz or plain tar. */
export function looksLikeArchive(header: Uint8Array): boolean {
	return magics.some((magic) => magic.every((byte, at) => header[at] === byte)) || looksLikeTarHeader(header);
}

/** A tar header is known by its checksum, which Unix has with signed bytes too. */
function looksLikeTarHeader(header: Uint8Array): boolean {
	if (header.length < blockSize) {
		return false;
	}
	const field = new TextDecoder("latin1").decode(header.subarray(148, 156));
	const [, digits] = /^[ \0]*([0-7]+)[ \0]*$/.exec(field) ?? [];
	if (digits === undefined) {
		return false;
	}
	let unsigned = 0;
	let signed = 0;
	for (let at = 0; at < blockSize; at++) {
		const byte = at >= 148 && at < 156 ? 0x20 : (header[at] ?? 0);
		unsigned += byte;
		signed += byte > 127 ? byte - 256 : byte;
	}
	const wanted = Number.parseInt(digits, 8);
	return wanted === unsigned || wanted === signed;
}
