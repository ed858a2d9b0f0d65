import { type JobContext, type PlainError, toPlainError } from "../async/job.ts";
import type { FetchLayerRequest, LayerBlob } from "./archive.ts";
import { fetchLayer } from "./fetch-layer.ts";
import { type GrowingFile, readGrowingFile } from "./growing-file.ts";
import { controlOf } from "./layer.ts";

export interface Input {
	readonly request: Omit<FetchLayerRequest, "chunks" | "keepAt">;
	readonly file: GrowingFile;
}

export type Output =
	| { readonly kind: "unpacked"; readonly layer: LayerBlob }
	| { readonly kind: "kept"; readonly failure: PlainError };

export async function run({ request, file }: Input, context: JobContext): Promise<Output> {
	const fetched = await fetchLayer(request, readGrowingFile(file, context), controlOf(context));
	return fetched.kind === "unpacked" ? fetched : { kind: "kept", failure: toPlainError(fetched.failure) };
}
