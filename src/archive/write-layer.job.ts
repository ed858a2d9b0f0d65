import type { JobContext } from "../async/job.ts";
import type { LayerBlob, WriteLayerRequest } from "./archive.ts";
import { controlOf, writeLayer } from "./layer.ts";

export function run(request: WriteLayerRequest, context: JobContext): Promise<LayerBlob> {
	return writeLayer(request, controlOf(context));
}
