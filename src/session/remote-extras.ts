import { emptyFindExportersRequest } from "../api/generated/session-exporter.ts";
import { policyVerifier } from "../api/services/policy-verifier.ts";
import { sessionExporter } from "../api/services/session-exporter.ts";
import { upload } from "../api/services/upload.ts";
import { hasCode } from "../errors/errors.ts";
import { call, openCall, type RemoteCalls } from "./remote-calls.ts";
import type { SessionExporters, SessionPolicy, SessionUploads } from "./session.ts";
import { callKeys } from "./session-metadata.ts";

export function createRemoteUploads(calls: RemoteCalls): SessionUploads {
	return {
		async *pull({ path, host }, { signal }) {
			using open = openCall(calls, upload.pull, {
				signal,
				metadata: { [callKeys.uploadPath]: [path], [callKeys.uploadHost]: [host] },
			});
			for await (const { data } of open.stream) {
				if (data.length > 0) {
					yield data;
				}
			}
		},
	};
}

export function createRemoteExporters(calls: RemoteCalls): SessionExporters {
	return {
		async find({ metadata, refs }, { signal }) {
			const { exporters } = await call(
				calls,
				sessionExporter.findExporters,
				{ ...emptyFindExportersRequest(), metadata: new Map(Object.entries(metadata)), refs },
				{ signal },
			);
			return exporters.map(({ Type, Attrs }) => ({ type: Type, attrs: Object.fromEntries(Attrs) }));
		},
		async finalize(response, { signal }) {
			if (!calls.supports(sessionExporter.finalizeExport)) {
				return;
			}
			try {
				await call(
					calls,
					sessionExporter.finalizeExport,
					{ exporterResponse: new Map(Object.entries(response)) },
					{ signal },
				);
			} catch (thrown) {
				if (!hasCode(thrown, "unimplemented")) {
					throw thrown;
				}
			}
		},
	};
}

export function createRemotePolicy(calls: RemoteCalls): SessionPolicy {
	return {
		check: (request, { signal }) => call(calls, policyVerifier.checkPolicy, request, { signal }),
	};
}
