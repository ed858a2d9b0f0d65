import { createPublicKey, randomBytes, timingSafeEqual, verify } from "node:crypto";
import { auth } from "../api/services/auth.ts";
import { hasCode, SlipwayError } from "../errors/errors.ts";
import { type CallRequest, call, type RemoteCalls } from "./remote-calls.ts";
import type { RegistryCredentials, SessionAuth, SessionTokens } from "./session.ts";

/** A client may ask its user, or a helper that does. */
const timeoutMs = 60_000;

/** Goes into every key that a client makes for us, so that none is good for longer than this process lives. */
const salt: Uint8Array = randomBytes(32);

/** The client's logins; tokens too if it gets them itself. */
export function createRemoteAuth(calls: RemoteCalls, hasTokens: boolean): SessionAuth {
	return {
		async credentials(host, { signal }) {
			if (!calls.supports(auth.credentials)) {
				return undefined;
			}
			try {
				const answer = await call(calls, auth.credentials, { Host: host }, { signal, timeoutMs });
				return credentialsOf(answer.Username, answer.Secret);
			} catch (thrown) {
				if (hasCode(thrown, "unimplemented")) {
					return undefined;
				}
				throw thrown;
			}
		},
		...(hasTokens ? { tokens: createTokens(calls) } : {}),
	};
}

function credentialsOf(username: string, secret: string): RegistryCredentials | undefined {
	if (username === "") {
		return secret === "" ? undefined : { kind: "identity-token", token: secret };
	}
	return { kind: "basic", username, password: secret };
}

function createTokens(calls: RemoteCalls): SessionTokens {
	const known = new Map<string, Uint8Array | undefined>();
	const authority = async (host: string, options: CallRequest): Promise<Uint8Array | undefined> => {
		if (known.has(host)) {
			return known.get(host);
		}
		const key = await askAuthority(calls, host, options);
		known.set(host, key);
		return key;
	};
	return {
		authority: (host, { signal }) => authority(host, { signal, timeoutMs }),
		async fetch({ host, realm, service, scopes }, { signal }) {
			if ((await authority(host, { signal, timeoutMs })) === undefined) {
				return undefined;
			}
			const answer = await call(
				calls,
				auth.fetchToken,
				{ ClientID: "buildkit-client", Host: host, Realm: realm, Service: service, Scopes: scopes },
				{ signal, timeoutMs },
			);
			return { token: answer.Token, expiresInSeconds: Number(answer.ExpiresIn) };
		},
		async verify(host, key, { signal }) {
			const payload = randomBytes(32);
			try {
				const { Signed } = await call(
					calls,
					auth.verifyTokenAuthority,
					{ Host: host, Salt: salt, Payload: payload },
					{ signal, timeoutMs },
				);
				return isSigned(Signed, payload, key);
			} catch (thrown) {
				if (hasCode(thrown, "unimplemented")) {
					return false;
				}
				throw thrown;
			}
		},
	};
}

async function askAuthority(
	calls: RemoteCalls,
	host: string,
	options: CallRequest,
): Promise<Uint8Array | undefined> {
	try {
		const { PublicKey } = await call(calls, auth.getTokenAuthority, { Host: host, Salt: salt }, options);
		if (PublicKey.length !== 32) {
			throw new SlipwayError("invalid-argument", `invalid pubkey length ${PublicKey.length}`);
		}
		return PublicKey.slice();
	} catch (thrown) {
		// Clients say `unavailable` where their user does not want this.
		if (hasCode(thrown, "unimplemented") || hasCode(thrown, "unavailable")) {
			return undefined;
		}
		throw thrown;
	}
}

const signatureBytes = 64;
/** RFC 8410: what is in front of an Ed25519 key in its standard form. */
const keyPrefix: Uint8Array = Buffer.from("302a300506032b6570032100", "hex");

/** NaCl's `sign_open`: signature, then message. */
function isSigned(signed: Uint8Array, payload: Uint8Array, key: Uint8Array): boolean {
	const message = signed.subarray(signatureBytes);
	if (message.length !== payload.length || !timingSafeEqual(message, payload) || key.length !== 32) {
		return false;
	}
	const publicKey = createPublicKey({
		key: Buffer.concat([keyPrefix, key]),
		format: "der",
		type: "spki",
	});
	return verify(null, message, publicKey, signed.subarray(0, signatureBytes));
}
