import { emptyGetSecretRequest } from "../api/generated/secrets.ts";
import { secrets } from "../api/services/secrets.ts";
import { hasCode, SlipwayError } from "../errors/errors.ts";
import { call, type RemoteCalls } from "./remote-calls.ts";
import { maxSecretBytes } from "./secrets.ts";
import type { SessionSecrets } from "./session.ts";

export function createRemoteSecrets(calls: RemoteCalls): SessionSecrets {
	return {
		async secret(id, { signal }) {
			if (!calls.supports(secrets.getSecret)) {
				return undefined;
			}
			let data: Uint8Array;
			try {
				({ data } = await call(calls, secrets.getSecret, { ...emptyGetSecretRequest(), ID: id }, { signal }));
			} catch (thrown) {
				if (hasCode(thrown, "not-found") || hasCode(thrown, "unimplemented")) {
					return undefined;
				}
				throw thrown;
			}
			if (data.length > maxSecretBytes) {
				throw new SlipwayError("invalid-argument", `invalid secret size ${data.length}`);
			}
			return data;
		},
	};
}
