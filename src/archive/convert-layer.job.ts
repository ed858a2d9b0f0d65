import type { JobContext } from "../async/job.ts";
import type { ConvertLayerRequest, LayerBlob } from "./archive.ts";
import { estargzPayload } from "./estargz.ts";
import { controlOf, convertLayer } from "./layer.ts";
import { openSource, type SentSource } from "./source.ts";

export interface Input {
	readonly request: Omit<ConvertLayerRequest, "source">;
	readonly source: SentSource;
}

export function run({ request, source }: Input, context: JobContext): Promise<LayerBlob> {
	const payload = source.kind === "file" ? estargzPayload(source.path) : undefined;
	return convertLayer(request, openSource(source, context.signal), controlOf(context), payload);
}
