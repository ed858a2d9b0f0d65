import { SlipwayError } from "../errors/errors.ts";
import { csvFields } from "../oci/csv-fields.ts";
import { sha256 } from "../oci/digest.ts";
import { type ProgressSink, progressTime } from "../progress/progress.ts";

/**
 * What clients ask for beside an image. This builder makes no attestations yet. Provenance is asked for by clients that were not
 * asked for it themselves, so that its lack is a warning of the build, and nothing where it is wanted only inside of a result
 * that could have it (docker buildx's default). A bill of materials was asked for by somebody: its lack is an error.
 */
export function checkAttestations(attrs: Readonly<Record<string, string>>): {
	readonly warning: string | undefined;
} {
	let warning: string | undefined;
	for (const [key, value] of Object.entries(attrs)) {
		const type = /^(?:attest:|build-arg:BUILDKIT_ATTEST_)(.*)$/s.exec(key)?.[1]?.toLowerCase();
		if (type === undefined) {
			continue;
		}
		if (type !== "sbom" && type !== "provenance") {
			throw new SlipwayError("unknown", `unknown attestation type ${JSON.stringify(type)}`);
		}
		const fields = value === "" ? [] : csvFields(value);
		if (fields.some((field) => field === "disabled=true" || field === "disabled")) {
			continue;
		}
		if (type === "sbom") {
			throw new SlipwayError(
				"unimplemented",
				"SBOM attestations are not supported yet: build without --sbom",
			);
		}
		if (!fields.includes("inline-only=true")) {
			warning = "provenance attestations are not supported yet: the result has none";
		}
	}
	return { warning };
}

/** A step of its own, as no other has to do with it. */
export function warnOfBuild(progress: ProgressSink, short: string): void {
	const name = "[internal] attestations";
	const vertex = sha256(name);
	const now = progressTime();
	progress.write({
		kind: "vertex",
		vertex: { digest: vertex, inputs: [], name, cached: false, started: now, completed: now },
	});
	progress.write({ kind: "warning", warning: { vertex, level: 1, short, detail: [] } });
}
