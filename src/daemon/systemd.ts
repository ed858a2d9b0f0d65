import { readFileSync, readlinkSync } from "node:fs";
import { SlipwayError } from "../errors/errors.ts";
import { notifySocket } from "../sys/notify-socket.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** The first descriptor that systemd hands over (sd_listen_fds(3)). */
const firstFd = 3;

/** Descriptors of sockets that systemd opened for this process. */
export function activatedSockets(env: Env): readonly number[] {
	const count = Number(env["LISTEN_FDS"] ?? "0");
	if (env["LISTEN_PID"] !== String(process.pid) || !Number.isInteger(count) || count <= 0) {
		return [];
	}
	return Array.from({ length: count }, (_, index) => firstFd + index);
}

/**
 * `fd://` and `fd://*`: all sockets that systemd opened; `fd://3` the one of this descriptor; `fd://NAME` those of this name
 * (`FileDescriptorName=`; by default the name of the socket unit).
 */
export function requireActivated(address: string, env: Env): readonly number[] {
	const fds = activatedSockets(env);
	if (fds.length === 0) {
		throw new SlipwayError(
			"failed-precondition",
			"no sockets found via socket activation: make sure the service was started by systemd",
		);
	}
	const wanted = address.slice("fd://".length);
	if (wanted === "" || wanted === "*") {
		return fds;
	}
	const names = (env["LISTEN_FDNAMES"] ?? "").split(":");
	const chosen = fds.filter((fd, index) => names[index] === wanted || String(fd) === wanted);
	if (chosen.length === 0) {
		const there = fds.map((fd, index) => `${fd}${names[index] ? ` (${names[index]})` : ""}`).join(", ");
		throw new SlipwayError("not-found", `address ${address}: systemd opened no such socket, only ${there}`);
	}
	return chosen;
}

/** Whether connections of a socket are of this machine: TLS is not for them. */
export function isUnixSocket(fd: number): boolean {
	const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[1];
	return (
		inode !== undefined &&
		readFileSync("/proc/net/unix", "utf8")
			.split("\n")
			.some((line) => line.split(/\s+/)[6] === inode)
	);
}

/** Tells a service manager how this service is (sd_notify(3)); does nothing without one. */
export function notify(env: Env, state: "READY=1" | "STOPPING=1"): void {
	const path = env["NOTIFY_SOCKET"];
	if (path !== undefined && path !== "") {
		notifySocket(path, state);
	}
}
