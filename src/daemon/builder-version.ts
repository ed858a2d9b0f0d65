import type { BuilderVersion } from "../control/service.ts";
import { version } from "./version.ts";

/** The BuildKit whose API, cache keys and Dockerfile language this builder has. Clients compare versions to know what they may use. */
const buildkitVersion = "v0.32.0";
const dockerfileVersion = "1.26.0";

export const builderVersion: BuilderVersion = {
	package: "slipway",
	version: `${buildkitVersion}+slipway.${version}`,
	revision: version,
	dockerfileVersion,
};
