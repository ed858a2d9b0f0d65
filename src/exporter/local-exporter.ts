import { realpathSync } from "node:fs";
import { wrap } from "../errors/errors.ts";
import { makeDirectories } from "../sys/make-directories.ts";
import type { CopyOutInput, CopyOutTree } from "./copy-out.job.ts";
import { resolveSource } from "./export-source.ts";
import type { Exporter, ExporterFactory, ExporterServices } from "./exporter.ts";
import { outputOf } from "./output.ts";
import { runToEnd } from "./run-to-end.ts";
import { withByteStatus } from "./status.ts";
import { epochFor, parseTreeOptions, platformDirectory } from "./tree-options.ts";
import { openTrees } from "./trees.ts";

/**
 * `local`: the files of the result in a directory of the client. They become the caller's and replace what has their names;
 * nothing else there is touched, unless the client asked for a mirror (`mode=delete`).
 */
export function createLocalExporter(services: ExporterServices): ExporterFactory {
	return (attrs): Exporter => {
		const options = parseTreeOptions(attrs);
		return {
			name: "exporting to client directory",
			async export(result, context) {
				const source = resolveSource(result);
				const output = outputOf(context, "directory", "local");
				const split = options.platformSplit ?? source.isMap;
				const mirror =
					output.kind === "directory"
						? output.mode === "delete"
						: attrs["mode"]?.trim().toLowerCase() === "delete";
				using opened = await openTrees(source.platforms, services, context);
				const trees = source.platforms.map(({ id }): CopyOutTree => {
					const seconds = epochFor(id, options, source);
					return {
						platformId: id,
						root: opened.path(id),
						prefix: split ? platformDirectory(id) : "",
						...(seconds === undefined ? {} : { modifiedSeconds: seconds }),
					};
				});
				const write = writerTo(output, mirror, services, context.signal);
				// Trees that share a directory are one piece of work: their names must not clash, and what is in none of them is deleted.
				const works = split && !mirror ? trees.map((tree) => [tree]) : [trees];
				for (const work of works) {
					const id = split && !mirror ? `copying files ${work[0]?.platformId}` : "copying files";
					await withByteStatus(context, id, (onBytes) => write(work, onBytes));
				}
				return {};
			},
		};
	};
}

type WriteTrees = (trees: readonly CopyOutTree[], onBytes: (total: number) => void) => Promise<void>;

/** To a directory of this host by a thread, to one elsewhere through the client. */
function writerTo(
	output: ReturnType<typeof outputOf<"directory">>,
	mirror: boolean,
	{ pool }: Pick<ExporterServices, "pool">,
	signal: AbortSignal,
): WriteTrees {
	if (output.kind === "tree") {
		return (trees, onBytes) =>
			output.send(
				trees.map(({ platformId, ...tree }) => ({ id: platformId, ...tree })),
				{ mirror, signal, onBytes },
			);
	}
	const directory = prepare(output.path);
	const [uid, gid] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0];
	return (trees, onBytes) =>
		runToEnd<CopyOutInput, void>(
			pool,
			"exporter/copy-out",
			{ trees, directory, mirror, uid, gid },
			{ signal, onMessage: (total) => onBytes(Number(total)) },
		);
}

/** The directory itself may be a link; below it none is followed. */
function prepare(path: string): string {
	try {
		makeDirectories(path, 0o700);
		return realpathSync(path);
	} catch (thrown) {
		throw wrap(thrown, `failed to create synctarget dest dir ${path}`);
	}
}
