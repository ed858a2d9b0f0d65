import type { Descriptor } from "../oci/descriptor.ts";
import { writeDescriptor } from "./documents.ts";
import type { WrittenImage } from "./image-writer.ts";

/** What exporters of images answer. An index has no config to name. */
export function imageResponse(
	{ manifests }: WrittenImage,
	root: Descriptor,
	names: string | undefined,
): Readonly<Record<string, string>> {
	const only = manifests.find(({ descriptor }) => descriptor.digest === root.digest);
	return {
		"containerimage.digest": root.digest,
		...(only === undefined ? {} : { "containerimage.config.digest": only.config.digest }),
		"containerimage.descriptor": Buffer.from(writeDescriptor(root)).toString("base64"),
		...(names === undefined ? {} : { "image.name": names }),
	};
}
