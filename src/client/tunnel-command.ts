import { SlipwayError } from "../errors/errors.ts";

type TunnelScheme = "docker-container" | "podman-container" | "nerdctl-container" | "kube-pod" | "ssh";

const dialStdio = ["buildctl", "dial-stdio"];

/** The program that reaches a builder elsewhere, with its arguments: those that BuildKit's client runs for the same address. */
export function tunnelCommand(scheme: TunnelScheme, address: string): readonly string[] {
	const url = URL.parse(address.replace(/^[a-z-]+:/, "http:"));
	if (url === null || url.hostname === "") {
		throw new SlipwayError("invalid-argument", `invalid builder address ${address}: it names no ${scheme}`);
	}
	// A URL's host is in lower case, the names of containers and pods need not be.
	const host = /^[a-z-]+:\/\/(?:[^@/]*@)?([^:/?#]*)/.exec(address)?.[1] ?? "";
	if (host.startsWith("-")) {
		throw new SlipwayError(
			"invalid-argument",
			`invalid builder address ${address}: a name cannot begin with "-"`,
		);
	}
	const query = (name: string, flag = name): string[] => {
		const value = url.searchParams.get(name);
		return value === null || value === "" ? [] : [`--${flag}=${value}`];
	};
	switch (scheme) {
		case "docker-container":
			return ["docker", ...query("context"), "exec", "-i", host, ...dialStdio];
		case "podman-container":
			return ["podman", "exec", "-i", host, ...dialStdio];
		case "nerdctl-container":
			return ["nerdctl", ...query("namespace"), "exec", "-i", host, ...dialStdio];
		case "kube-pod":
			return [
				"kubectl",
				...query("context"),
				...query("namespace"),
				"exec",
				...query("container"),
				"-i",
				host,
				"--",
				...dialStdio,
			];
		case "ssh":
			return sshCommand(url, host, address);
	}
}

function sshCommand(url: URL, host: string, address: string): readonly string[] {
	if (url.password !== "") {
		throw new SlipwayError("invalid-argument", "plain-text password is not supported in an ssh address");
	}
	if (url.search !== "" || url.hash !== "") {
		throw new SlipwayError(
			"invalid-argument",
			`invalid builder address ${address}: no query or fragment with ssh`,
		);
	}
	const user = url.username === "" ? [] : ["-l", decodeURIComponent(url.username)];
	const port = url.port === "" ? [] : ["-p", url.port];
	const socket = url.pathname === "/" || url.pathname === "" ? [] : ["--addr", `unix://${url.pathname}`];
	return ["ssh", ...user, ...port, "--", host, "buildctl", ...socket, "dial-stdio"];
}
