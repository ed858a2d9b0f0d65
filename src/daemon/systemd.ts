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

/** `fd://`: all sockets that systemd opened. */
export function requireActivated(address: string, env: Env): readonly number[] {
	if (address !== "fd://") {
		throw new SlipwayError(
			"unimplemented",
			`address ${address}: choosing one of systemd's sockets is not supported yet`,
		);
	}
	const fds = activatedSockets(env);
	if (fds.length === 0) {
		throw new SlipwayError(
			"failed-precondition",
			"no sockets found via socket activation: make sure the service was started by systemd",
		);
	}
	return fds;
}

/** Tells a service manager how this service is (sd_notify(3)); does nothing without one. */
export function notify(env: Env, state: "READY=1" | "STOPPING=1"): void {
	const path = env["NOTIFY_SOCKET"];
	if (path !== undefined && path !== "") {
		notifySocket(path, state);
	}
}
