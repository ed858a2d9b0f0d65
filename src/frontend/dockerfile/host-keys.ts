import { SlipwayError } from "../../errors/errors.ts";
import { parseGitRemote } from "../../llb/git-remote.ts";
import { deferredOutput } from "../../llb/llb.ts";
import { type GitOptions, git } from "../../llb/sources.ts";
import { type State, stateOf } from "../../llb/state.ts";
import type { FrontendBridge } from "../frontend.ts";

/** Git sources that know their ssh server's key: it becomes an attribute of the op, as BuildKit's client makes it. */
export interface HostKeys {
	/** The server is asked from now on; the state can be marshalled when `settled` has. */
	git(url: string, options: GitOptions): State;
	/** Waits for all servers that were asked. A server that does not answer has no key: that is no error here. */
	settled(): Promise<void>;
}

const ofBridge = new WeakMap<FrontendBridge, HostKeys>();

/** One for each bridge, which is one for each build: a server is asked once in it. */
export function hostKeysOf(bridge: FrontendBridge, signal: AbortSignal): HostKeys {
	let keys = ofBridge.get(bridge);
	if (keys === undefined) {
		keys = createHostKeys((host) => bridge.hostKey?.(host, { signal }) ?? Promise.resolve(undefined));
		ofBridge.set(bridge, keys);
	}
	return keys;
}

export function createHostKeys(ask: (host: string) => Promise<string | undefined>): HostKeys {
	const known = new Map<string, string | undefined>();
	const asked = new Map<string, Promise<void>>();
	return {
		git(url, options) {
			const remote = parseGitRemote(url);
			if (remote?.scheme !== "ssh") {
				return git(url, options);
			}
			const { host } = remote;
			if (!asked.has(host)) {
				asked.set(
					host,
					ask(host).then(
						(key) => {
							known.set(host, key);
						},
						() => {},
					),
				);
			}
			return stateOf(
				deferredOutput(() => {
					const key = known.get(host);
					const { output } = git(url, { ...options, ...(key === undefined ? {} : { knownSshHosts: key }) });
					if (output === undefined) {
						throw new SlipwayError("internal", "a git source without output");
					}
					return output;
				}),
			);
		},
		async settled() {
			await Promise.all(asked.values());
		},
	};
}
