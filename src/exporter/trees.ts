import type { StepContext } from "../solver/solver.ts";
import type { ExporterServices, PlatformResult } from "./exporter.ts";

/** The file systems of a result at paths of this host, until disposed. */
export interface OpenTrees extends Disposable {
	/** Undefined for an empty result. */
	path(platformId: string): string | undefined;
}

export async function openTrees(
	platforms: readonly PlatformResult[],
	{ mountTree }: Pick<ExporterServices, "mountTree">,
	{ signal, progress, vertex }: StepContext,
): Promise<OpenTrees> {
	using mounted = new DisposableStack();
	const mounts = await Promise.all(
		platforms.map(async ({ id, ref }) => [id, await ref?.mounts({ signal, progress, vertex })] as const),
	);
	const paths = new Map<string, string>();
	for (const [id, specs] of mounts) {
		if (specs !== undefined) {
			paths.set(id, mounted.use(mountTree(specs)).path);
		}
	}
	const held = mounted.move();
	return {
		path: (platformId) => paths.get(platformId),
		[Symbol.dispose]: () => held.dispose(),
	};
}
