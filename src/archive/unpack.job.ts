import type { JobContext } from "../async/job.ts";
import type { UnpackRequest } from "./archive.ts";
import { controlOf } from "./layer.ts";
import { isArchive, unpack } from "./unpack.ts";

export type Input =
	| { readonly kind: "detect"; readonly path: string }
	| { readonly kind: "unpack"; readonly request: UnpackRequest };

export async function run(input: Input, context: JobContext): Promise<boolean> {
	if (input.kind === "detect") {
		return await isArchive(input.path, controlOf(context));
	}
	await unpack(input.request, controlOf(context));
	return true;
}
