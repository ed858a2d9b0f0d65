import type { JobContext } from "../async/job.ts";
import type { ExtractLayerRequest, LayerBlob } from "./archive.ts";
import { controlOf, extractLayer } from "./layer.ts";
import { openSource, type SentSource } from "./source.ts";

export interface Input {
	readonly request: Omit<ExtractLayerRequest, "source">;
	readonly source: SentSource;
}

export function run({ request, source }: Input, context: JobContext): Promise<LayerBlob> {
	return extractLayer(request, openSource(source, context.signal), controlOf(context));
}
