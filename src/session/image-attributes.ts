/**
 * Attributes that mean something in an image. Others belong to the machine (labels, access lists with its user ids) or would
 * change what an overlay file system makes of the directory.
 */
export function isImageAttribute(name: string): boolean {
	return name === "security.capability" || (name.startsWith("user.") && !name.startsWith("user.overlay."));
}
