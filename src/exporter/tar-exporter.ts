import type { TarPart } from "../archive/archive.ts";
import { sortUtf8 } from "../oci/utf8-order.ts";
import { resolveSource } from "./export-source.ts";
import type { Exporter, ExporterFactory, ExporterServices } from "./exporter.ts";
import { outputOf, withStream, writeTrees } from "./output.ts";
import { withStatus } from "./status.ts";
import { epochFor, parseTreeOptions, platformDirectory } from "./tree-options.ts";
import { openTrees } from "./trees.ts";

/** `tar`: the files of the result as one tar, with a directory per platform if it is for several. */
export function createTarExporter(services: ExporterServices): ExporterFactory {
	return (attrs): Exporter => {
		const options = parseTreeOptions(attrs);
		return {
			name: "exporting to client tarball",
			async export(result, context) {
				const source = resolveSource(result);
				const output = outputOf(context, "stream", "tar");
				using trees = await openTrees(source.platforms, services, context);
				const parts = new Map<string, readonly TarPart[]>();
				for (const { id } of source.platforms) {
					const seconds = epochFor(id, options, source);
					const name = source.isMap ? platformDirectory(id) : "";
					const root = trees.path(id);
					const tree: TarPart[] =
						root === undefined
							? []
							: [
									{
										kind: "tree",
										root,
										...(name === "" ? {} : { prefix: name }),
										...(seconds === undefined ? {} : { modifiedSeconds: seconds }),
									},
								];
					const directory: TarPart[] =
						name === "" ? [] : [{ kind: "directory", name, mode: 0o755, modifiedSeconds: seconds ?? 0 }];
					parts.set(name, [...directory, ...tree]);
				}
				const sorted = sortUtf8(parts.keys()).flatMap((name) => parts.get(name) ?? []);
				await withStream(output, {}, (stream) =>
					withStatus(context, "sending tarball", () => writeTrees(stream, sorted, services, context.signal)),
				);
				return {};
			},
		};
	};
}
