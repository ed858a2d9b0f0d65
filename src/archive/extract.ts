import {
	chmodSync,
	closeSync,
	constants,
	fchmodSync,
	ftruncateSync,
	linkSync,
	mkdirSync,
	openSync,
	symlinkSync,
	writeSync,
} from "node:fs";
import { hasCode, SlipwayError, wrap } from "../errors/errors.ts";
import { cleanPath } from "../patterns/clean-path.ts";
import type { ByteString } from "../sys/byte-names.ts";
import { fsPath, textOf } from "../sys/byte-names.ts";
import { inUserNamespace } from "../sys/namespace.ts";
import { makeDevice, makeNode, setTimes } from "../sys/node.ts";
import { changeOpenOwner, changeOwnOwner } from "../sys/owner.ts";
import { setXattr } from "../sys/xattr.ts";
import type { ExtractLimits, TarHeader } from "./archive.ts";
import { type MetadataOptions, ownerOf, setXattrs, type Times, timesOf } from "./extract-metadata.ts";
import { copyAttributes, removeTree } from "./extract-tree.ts";
import { splitPath } from "./names.ts";
import { resolveInRoot } from "./root-path.ts";
import type { TarHandler } from "./tar-reader.ts";
import { isWhiteout, namesIn, statIfAny } from "./walk.ts";
import { opaqueAttribute, opaqueValue, parseWhiteout } from "./whiteouts.ts";

export interface ExtractorOptions extends MetadataOptions {
	readonly root: ByteString;
	/** `keep` takes whiteouts for ordinary files, as ADD does. */
	readonly whiteouts: "overlay" | "overlay-user" | "apply" | "keep";
	/** Layers below, uppermost first. */
	readonly parents: readonly ByteString[];
	/** Collect missing parents instead of looking for them in `parents`. */
	readonly reportOrphans?: boolean;
	readonly limits: ExtractLimits;
	readonly throwIfAborted: () => void;
}

/** The file whose content is coming. */
interface OpenFile {
	readonly fd: number;
	readonly path: ByteString;
	readonly header: TarHeader;
	position: number;
	sparse: boolean;
}

/**
 * Writes the entries of an archive below a folder, with owners, modes, attributes and times to the nanosecond. What an
 * archive says is not trusted: names are cleaned and taken from the root; folders are found component by component with
 * links resolved inside the root; files are made exclusively and never through a link; owner comes before attributes (a change of owner
 * drops capabilities), attributes before mode, times last and those of folders at the very end.
 *
 * Nobody else may write to the root meanwhile. After an error the tree is incomplete; `close` releases what is open.
 */
export class Extractor implements TarHandler {
	readonly #options: ExtractorOptions;
	readonly #root: ByteString;
	/** Folders by cleaned name relative to the root: where they are. Dropped whenever a folder or link is removed. */
	readonly #folders = new Map<ByteString, ByteString>();
	/** Applied in the end, as making files in a folder changes its time. */
	readonly #folderTimes = new Map<ByteString, Times>();
	/** What this archive made, kept only where opaque folders must tell it from what was there. */
	readonly #made: Set<ByteString> | undefined;
	/** Relative to the root, which is one itself until the archive speaks of it. */
	readonly #orphans = new Set<ByteString>([""]);
	readonly #withoutDevices: boolean = inUserNamespace();
	#lastFolder: ByteString | undefined;
	#lastResolved: ByteString = "";
	#file: OpenFile | undefined;
	#bytes = 0;
	#entries = 0;

	constructor(options: ExtractorOptions) {
		this.#options = options;
		this.#root = options.root === "/" ? "" : options.root.replace(/\/+$/, "");
		this.#made = options.whiteouts === "apply" ? new Set() : undefined;
	}

	get entries(): number {
		return this.#entries;
	}

	/** Folders that the archive does not speak of, relative to the root (itself the empty name), in the order of making. */
	get orphans(): readonly ByteString[] {
		return [...this.#orphans];
	}

	entry(header: TarHeader): void {
		this.#options.throwIfAborted();
		this.#count(header);
		if (header.kind === "global") {
			return;
		}
		try {
			this.#create(header);
		} catch (thrown) {
			throw wrap(thrown, `extract ${JSON.stringify(textOf(header.name))}`);
		}
	}

	data(piece: Uint8Array): void {
		const file = this.#file;
		if (file === undefined) {
			return;
		}
		this.#options.throwIfAborted();
		try {
			for (let at = 0; at < piece.length; ) {
				const written = writeSync(file.fd, piece, at, piece.length - at, file.position);
				at += written;
				file.position += written;
			}
		} catch (thrown) {
			throw wrap(thrown, `write ${textOf(file.path)}`);
		}
	}

	hole(bytes: number): void {
		if (this.#file !== undefined) {
			this.#file.position += bytes;
			this.#file.sparse = true;
		}
	}

	end(): void {
		const file = this.#file;
		if (file === undefined) {
			return;
		}
		const { fd, path, header } = file;
		try {
			if (file.sparse) {
				ftruncateSync(fd, header.size);
			}
			const owner = ownerOf(header, this.#options);
			if (owner !== undefined) {
				changeOpenOwner(fd, owner.uid, owner.gid);
			}
			setXattrs(path, header, this.#options);
			fchmodSync(fd, header.mode & 0o7777);
		} catch (thrown) {
			throw wrap(thrown, `extract ${JSON.stringify(textOf(header.name))}`);
		} finally {
			this.#file = undefined;
			closeSync(fd);
		}
		setTimes(fsPath(path), ...timesOf(header));
	}

	/** Call after the last entry. */
	finish(): void {
		for (const [path, times] of this.#folderTimes) {
			setTimes(fsPath(path), ...times);
		}
		this.#folderTimes.clear();
	}

	close(): void {
		if (this.#file !== undefined) {
			closeSync(this.#file.fd);
			this.#file = undefined;
		}
	}

	#count(header: TarHeader): void {
		const { maxBytes, maxEntries } = this.#options.limits;
		this.#entries++;
		this.#bytes += header.size;
		if (maxEntries !== undefined && this.#entries > maxEntries) {
			throw new SlipwayError("resource-exhausted", `archive has more than ${maxEntries} entries`);
		}
		if (maxBytes !== undefined && this.#bytes > maxBytes) {
			throw new SlipwayError(
				"resource-exhausted",
				`archive has more than ${maxBytes} bytes of content, reached at ${JSON.stringify(textOf(header.name))}`,
			);
		}
	}

	#create(header: TarHeader): void {
		const [folderPart, base] = splitPath(cleanPath(header.name));
		// The root itself is its owner's affair; a name that only climbs is the root.
		if (base === "" || base === "." || base === "..") {
			return;
		}
		const { whiteouts } = this.#options;
		const isDevice = header.kind === "character-device" || header.kind === "block-device";
		if (isDevice && this.#withoutDevices) {
			return;
		}
		const folderName = folderPart.replace(/^\/+|\/+$/g, "");
		const folder = this.#folder(folderName);
		const whiteout = whiteouts === "keep" ? undefined : parseWhiteout(base);
		const path = `${folder}/${base}`;
		if (whiteout === undefined) {
			this.#make(header, path);
			this.#made?.add(path);
			if (header.kind === "directory") {
				this.#folders.set(folderName === "" ? base : `${folderName}/${base}`, path);
			}
		} else if (whiteouts === "apply") {
			if (whiteout.kind === "opaque") {
				this.#removeOld(folder);
			} else {
				this.#remove(`${folder}/${whiteout.name}`);
			}
		} else if (whiteouts !== "keep") {
			if (whiteout.kind === "opaque") {
				setXattr(fsPath(folder === "" ? "/" : folder), opaqueAttribute(whiteouts), opaqueValue);
			} else {
				this.#makeWhiteout(`${folder}/${whiteout.name}`, header);
			}
		}
	}

	/** Makes the file, over whatever but a folder for a folder is there. */
	#make(header: TarHeader, path: ByteString): void {
		const at = fsPath(path);
		switch (header.kind) {
			case "file": {
				const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
				const fd = this.#orReplace(path, () => openSync(at, flags, 0o600));
				this.#file = { fd, path, header, position: 0, sparse: false };
				return;
			}
			case "directory":
				this.#makeFolder(path);
				break;
			case "symlink":
				this.#orReplace(path, () => symlinkSync(fsPath(header.linkName), at));
				break;
			case "hardlink": {
				const target = fsPath(this.#linkTarget(header));
				this.#orReplace(path, () => linkSync(target, at));
				break;
			}
			case "character-device":
			case "block-device": {
				const kind = header.kind === "block-device" ? "block" : "character";
				const device = makeDevice(header.deviceMajor, header.deviceMinor);
				this.#orReplace(path, () => makeNode(at, kind, header.mode, device));
				break;
			}
			case "fifo":
				this.#orReplace(path, () => makeNode(at, "fifo", header.mode));
				break;
			case "global":
				return;
		}
		this.#setMetadata(header, path);
	}

	#setMetadata(header: TarHeader, path: ByteString): void {
		const at = fsPath(path);
		const owner = ownerOf(header, this.#options);
		if (owner !== undefined) {
			try {
				changeOwnOwner(at, owner.uid, owner.gid);
			} catch (thrown) {
				const hint =
					(thrown as NodeJS.ErrnoException).code === "EINVAL" && this.#withoutDevices
						? " (try increasing the number of subordinate IDs in /etc/subuid and /etc/subgid)"
						: "";
				throw wrap(thrown, `lchown to ${owner.uid}:${owner.gid}${hint}`);
			}
		}
		setXattrs(path, header, this.#options);
		const isLink =
			header.kind === "symlink" || (header.kind === "hardlink" && statIfAny(path)?.isSymbolicLink() === true);
		if (!isLink) {
			chmodSync(at, header.mode & 0o7777);
		}
		const times = timesOf(header);
		setTimes(at, ...times);
		if (header.kind === "directory") {
			this.#orphans.delete(path.slice(this.#root.length));
			this.#folderTimes.set(path, times);
		}
	}

	/** A target outside of the root is found inside of it, as for any name. */
	#linkTarget(header: TarHeader): ByteString {
		const [folder, base] = splitPath(header.linkName);
		if (base === "" || base === "." || base === "..") {
			throw new SlipwayError(
				"invalid-argument",
				`invalid target ${JSON.stringify(textOf(header.linkName))} of hard link`,
			);
		}
		return `${resolveInRoot(this.#root, folder)}/${base}`;
	}

	#makeFolder(path: ByteString): void {
		const old = statIfAny(path);
		if (old?.isDirectory() === true) {
			return;
		}
		if (old !== undefined) {
			this.#remove(path);
		}
		mkdirSync(fsPath(path), 0o700);
		const { whiteouts } = this.#options;
		if (old !== undefined && isWhiteout(old) && (whiteouts === "overlay" || whiteouts === "overlay-user")) {
			// Deleted and made anew in the same layer: what the layers below have there must stay hidden.
			setXattr(fsPath(path), opaqueAttribute(whiteouts), opaqueValue);
		}
	}

	#makeWhiteout(path: ByteString, header: TarHeader): void {
		try {
			makeNode(fsPath(path), "character", 0, 0);
		} catch (thrown) {
			const old = hasCode(thrown, "already-exists") ? statIfAny(path) : undefined;
			if (old === undefined || !isWhiteout(old)) {
				throw thrown;
			}
		}
		const owner = ownerOf(header, this.#options);
		if (owner !== undefined) {
			changeOwnOwner(fsPath(path), owner.uid, owner.gid);
		}
	}

	/** Tries first: nearly every path of an archive is new. */
	#orReplace<T>(path: ByteString, action: () => T): T {
		try {
			return action();
		} catch (thrown) {
			const isTaken =
				(thrown as NodeJS.ErrnoException).code === "EEXIST" || hasCode(thrown, "already-exists");
			if (!isTaken) {
				throw thrown;
			}
		}
		this.#remove(path);
		return action();
	}

	#remove(path: ByteString): void {
		const stats = statIfAny(path);
		if (stats === undefined) {
			return;
		}
		removeTree(path, stats);
		if (!stats.isDirectory() && !stats.isSymbolicLink()) {
			return;
		}
		this.#folders.clear();
		this.#lastFolder = undefined;
		if (stats.isDirectory()) {
			for (const folder of this.#folderTimes.keys()) {
				if (folder === path || folder.startsWith(`${path}/`)) {
					this.#folderTimes.delete(folder);
				}
			}
		}
	}

	/** Empties a folder of all that this archive did not make. */
	#removeOld(folder: ByteString): void {
		for (const name of namesIn(folder === "" ? "/" : folder)) {
			const path = `${folder}/${name}`;
			if (this.#made?.has(path) !== true) {
				this.#remove(path);
			} else if (statIfAny(path)?.isDirectory() === true) {
				this.#removeOld(path);
			}
		}
	}

	/** Where the folder is, made with all above it if it is not there. */
	#folder(name: ByteString): ByteString {
		if (name === "") {
			return this.#root;
		}
		if (name === this.#lastFolder) {
			return this.#lastResolved;
		}
		let resolved = this.#folders.get(name);
		if (resolved === undefined) {
			resolved = this.#findFolder(name);
			this.#folders.set(name, resolved);
		}
		this.#lastFolder = name;
		this.#lastResolved = resolved;
		return resolved;
	}

	#findFolder(name: ByteString): ByteString {
		const [above, base] = splitPath(name);
		if (base !== "..") {
			const path = `${this.#folder(above.replace(/\/+$/, ""))}/${base}`;
			const stats = statIfAny(path);
			if (stats === undefined) {
				this.#makeParent(path);
				return path;
			}
			if (stats.isDirectory()) {
				return path;
			}
			if (!stats.isSymbolicLink()) {
				throw new SlipwayError("failed-precondition", `mkparent ${textOf(path)}: not a directory`);
			}
		}
		// A link, or a name that climbs: what it leads to has neither, and is made if it is not there.
		const target = resolveInRoot(this.#root, name).slice(this.#root.length + 1);
		return this.#folder(target);
	}

	/** A folder that the archive does not speak of looks like that of the layers below, if they have it. */
	#makeParent(path: ByteString): void {
		const at = fsPath(path);
		mkdirSync(at, 0o755);
		chmodSync(at, 0o755);
		this.#made?.add(path);
		if (this.#options.reportOrphans === true) {
			this.#orphans.add(path.slice(this.#root.length));
			return;
		}
		for (const parent of this.#options.parents) {
			const below = resolveInRoot(parent, path.slice(this.#root.length));
			const stats = statIfAny(below);
			if (stats?.isDirectory() === true) {
				this.#folderTimes.set(path, copyAttributes(below, stats, path, this.#options.owner !== "ignore"));
			}
			if (stats !== undefined) {
				return;
			}
		}
	}
}
