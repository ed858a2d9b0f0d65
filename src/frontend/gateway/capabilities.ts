import type { APICap } from "../../api/generated/caps.ts";
import { listCapabilities } from "../../llb/capabilities.ts";

/** What the gateway can, by BuildKit's ids. */
const gatewayIds: readonly string[] = `
	solve.base solve.inlinereturn resolveimage resolveimage.resolvemode readfile return returnmap readdir statfile
	importcaches proto.refarray reference.output frontend.inputs gateway.solve.metadata gateway.exec
	gateway.exec.extrahosts gateway.exec.secretenv gateway.exec.signals gateway.exec.filesystem frontend.caps
	gateway.solve.evaluate gateway.evaluate gateway.warnings reference.attestations source.metaresolver
	source.metaresolver.image.attestations source.metaresolver.http.checksumrequest
`
	.trim()
	.split(/\s+/);

const deprecated: ReadonlySet<string> = new Set(["solve.inlinereturn"]);

export function gatewayCapabilities(): readonly APICap[] {
	return gatewayIds.toSorted().map((id) => capability(id, deprecated.has(id)));
}

/** Of the build graph. */
export function graphCapabilities(): readonly APICap[] {
	return listCapabilities().map(({ id, deprecated = false }) => capability(id, deprecated));
}

function capability(id: string, isDeprecated: boolean): APICap {
	return {
		ID: id,
		Enabled: true,
		Deprecated: isDeprecated,
		DisabledReason: "",
		DisabledReasonMsg: "",
		DisabledAlternative: "",
	};
}
