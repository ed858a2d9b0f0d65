import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SlipwayError, toError } from "../errors/errors.ts";
import { lockFile } from "../sys/lock.ts";
import { addressBytes, type Route } from "../sys/network.ts";
import type { FileLock } from "../sys/sys.ts";

/**
 * A part of the addresses that belongs to one builder of this machine, as long as that lives: the kernel gives the lock free with the
 * process. What the owner changes on the machine and the kernel does not take back is noted beside the lock before it is changed, so that
 * whoever comes next can undo it.
 */
export interface NetworkSlot extends Disposable {
	readonly index: number;
	/** The first three bytes of all addresses. */
	readonly network: Uint8Array;
	/** Notes what has to be undone, before it is done. */
	note(changes: SlotChanges): void;
}

export interface SlotChanges {
	/** Commands. */
	readonly undo: readonly (readonly string[])[];
	/** Interfaces whose forwarding was off. */
	readonly forwarding: readonly string[];
}

export interface SlotOptions {
	/** Of all builders of this machine. */
	readonly directory: string;
	/** `10.213.0.0/16`. */
	readonly subnet: string;
	readonly routes: readonly Route[];
	/** Undoes the changes. `others`: another builder lives, which may need the forwarding. */
	readonly undo: (changes: SlotChanges, options: { readonly others: boolean }) => void;
}

/** Builders that do not see our directory, as in a container, may have a part; the kernel refuses it to us then. */
const maxRefused = 4;

/**
 * Takes the first part that nobody has and no route leads to. What dead builders left is undone on the way. `prepare` changes the
 * machine; no other builder does meanwhile.
 */
export function takeNetworkSlot(options: SlotOptions, prepare: (slot: NetworkSlot) => void): NetworkSlot {
	const { directory } = options;
	mkdirSync(directory, { recursive: true, mode: 0o700 });
	using _all = lockSoon(join(directory, "lock"));
	sweep(options);
	const { first, count } = parseSubnet(options.subnet);
	let refused = 0;
	for (let index = 0; index < count; index++) {
		const network = partOf(first, index);
		if (options.routes.some((route) => overlaps(route, network))) {
			continue;
		}
		const lock = lockFile(slotPath(directory, index));
		if (lock !== undefined) {
			const slot = slotOf(index, network, { lock, options });
			try {
				prepare(slot);
				return slot;
			} catch (error) {
				undoNoted(index, options);
				lock[Symbol.dispose]();
				refused += 1;
				if (toError(error).code !== "permission-denied" || refused === maxRefused) {
					throw error;
				}
			}
		}
	}
	throw new SlipwayError(
		"resource-exhausted",
		`no free addresses for a network of steps in ${options.subnet}: other builders or routes have them all`,
	);
}

function slotOf(
	index: number,
	network: Uint8Array,
	{ lock, options }: { readonly lock: FileLock; readonly options: SlotOptions },
): NetworkSlot {
	const { directory } = options;
	let held = true;
	return {
		index,
		network,
		note: (changes) => writeFileSync(notePath(directory, index), JSON.stringify(changes), { mode: 0o600 }),
		[Symbol.dispose]() {
			if (held) {
				held = false;
				using _all = lockSoon(join(directory, "lock"));
				undoNoted(index, options);
				lock[Symbol.dispose]();
			}
		},
	};
}

/** Must be called with the lock of all. */
function sweep(options: SlotOptions): void {
	for (const index of notedSlots(options.directory)) {
		using lock = lockFile(slotPath(options.directory, index));
		if (lock !== undefined) {
			undoNoted(index, options);
		}
	}
}

function undoNoted(index: number, options: SlotOptions): void {
	const path = notePath(options.directory, index);
	let changes: SlotChanges;
	try {
		changes = JSON.parse(readFileSync(path, "utf8")) as SlotChanges;
	} catch {
		// Nothing was changed, or not yet: the note goes first.
		rmSync(path, { force: true });
		return;
	}
	const others = notedSlots(options.directory).filter(
		(other) => other !== index && isTaken(options.directory, other),
	);
	const [heir] = others;
	options.undo(changes, { others: heir !== undefined });
	if (heir !== undefined && changes.forwarding.length > 0) {
		inherit(notePath(options.directory, heir), changes.forwarding);
	}
	rmSync(path, { force: true });
}

/** The one who lives on turns off what the one who goes had turned on. */
function inherit(path: string, forwarding: readonly string[]): void {
	const changes = JSON.parse(readFileSync(path, "utf8")) as SlotChanges;
	const all = [...new Set([...changes.forwarding, ...forwarding])];
	writeFileSync(path, JSON.stringify({ ...changes, forwarding: all }), { mode: 0o600 });
}

function notedSlots(directory: string): readonly number[] {
	return readdirSync(directory).flatMap((name) => {
		const match = /^slot-(\d+)\.json$/.exec(name);
		return match === null ? [] : [Number(match[1])];
	});
}

function isTaken(directory: string, index: number): boolean {
	if (!existsSync(slotPath(directory, index))) {
		return false;
	}
	using lock = lockFile(slotPath(directory, index));
	return lock === undefined;
}

function slotPath(directory: string, index: number): string {
	return join(directory, `slot-${index}`);
}

function notePath(directory: string, index: number): string {
	return join(directory, `slot-${index}.json`);
}

const lockTries = 400;
const lockPauseMs = 5;

/** Held for milliseconds only, so waiting for it is short; a pause of this thread is the only way that leaves no gap. */
function lockSoon(path: string): FileLock {
	for (let tries = 0; tries < lockTries; tries++) {
		const lock = lockFile(path);
		if (lock !== undefined) {
			return lock;
		}
		Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, lockPauseMs);
	}
	throw new SlipwayError("unavailable", `${path} is locked by another builder that does not go on`);
}

function parseSubnet(text: string): { readonly first: Uint8Array; readonly count: number } {
	const match = /^([\d.]+)\/(\d+)$/.exec(text);
	const prefix = Number(match?.[2]);
	if (match === null || prefix < 8 || prefix > 24) {
		throw new SlipwayError(
			"invalid-argument",
			`invalid subnet ${JSON.stringify(text)} for networks of steps: use an IPv4 network of at least 256 addresses, as in 10.213.0.0/16`,
		);
	}
	return { first: addressBytes(match[1] ?? ""), count: 2 ** (24 - prefix) };
}

function partOf([a = 0, b = 0, c = 0]: Uint8Array, index: number): Uint8Array {
	const number = a * 65_536 + b * 256 + c + index;
	return new Uint8Array([number >> 16, (number >> 8) & 255, number & 255]);
}

function overlaps(route: Route, [a = 0, b = 0, c = 0]: Uint8Array): boolean {
	if (route.prefix === 0) {
		return false;
	}
	const bits = Math.min(route.prefix, 24);
	const [ra = 0, rb = 0, rc = 0] = addressBytes(route.address);
	const shift = 24 - bits;
	return (a * 65_536 + b * 256 + c) >> shift === (ra * 65_536 + rb * 256 + rc) >> shift;
}
