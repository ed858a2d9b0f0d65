import { posix } from "node:path";
import { SlipwayError, wrap } from "../../errors/errors.ts";
import { cleanPath, joinPath } from "../../llb/go-path.ts";

/**
 * Paths in images of any OS, as BuildKit's `util/system` treats them. Windows paths may have a drive letter, which must
 * be C and goes away, and backslashes, which become slashes until the path is handed to the config.
 */
export function toSlash(path: string, os: string): string {
	return os === "windows" ? path.replaceAll("\\", "/") : path;
}

export interface NormalizeOptions {
	/** Where a relative path begins. */
	readonly parent: string;
	readonly os: string;
	/** A slash, or slash and dot, at the end stays: it says "into the directory". */
	readonly keepSlash: boolean;
}

/** The absolute path with forward slashes. Throws `invalid-argument` for a Windows path that can't be one. */
export function normalizePath(path: string, { parent, os, keepSlash }: NormalizeOptions): string {
	const written = toSlash(path, os);
	let from = removeDriveLetter(toSlash(parent, os) || "/", os, keepSlash);
	if (!posix.isAbsolute(from)) {
		from = joinPath("/", from);
	}
	let result = removeDriveLetter(written === "" ? from : written, os, keepSlash);
	if (!isAbsolutePath(result, os)) {
		result = joinPath(from, result);
	}
	if (keepSlash) {
		if (written.endsWith("/") && !result.endsWith("/")) {
			result += "/";
		} else if (written.endsWith("/.")) {
			result += result === "/" ? "." : "/.";
		}
	}
	return toSlash(result, os);
}

/** The new working directory with the separators of its OS. */
export function normalizeWorkdir(current: string, next: string, os: string): string {
	try {
		const path = normalizePath(next, { parent: current, os, keepSlash: false });
		return os === "windows" ? path.replaceAll("/", "\\") : path;
	} catch (error) {
		throw wrap(error, "normalizing working directory");
	}
}

export function isAbsolutePath(path: string, os: string): boolean {
	try {
		return posix.isAbsolute(removeDriveLetter(path, os, false));
	} catch {
		return false;
	}
}

/** The path without its drive letter; on other systems the path as it is. Throws `invalid-argument`. */
export function removeDriveLetter(path: string, os: string, keepSlash: boolean): string {
	try {
		return withoutDrive(path, os, keepSlash);
	} catch (error) {
		throw wrap(error, "removing drive letter");
	}
}

function withoutDrive(path: string, os: string, keepSlash: boolean): string {
	if (os !== "windows") {
		return path;
	}
	if (path.length === 2 && path[1] === ":") {
		throw invalid(`No relative path specified in ${JSON.stringify(path)}`);
	}
	if (toSlash(path.slice(0, 2), os) === "//") {
		throw invalid("UNC paths are not supported");
	}
	const colon = path.indexOf(":");
	if (colon !== -1 && path.slice(0, colon).toLowerCase() !== "c") {
		throw invalid("The specified path is not on the system drive (C:)");
	}
	const rest = toSlash(path.slice(colon + 1), os);
	const clean = cleanPath(rest);
	return keepSlash && clean.length > 1 && rest.endsWith("/") ? `${clean}/` : clean;
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
