import type { ContextArchiver } from "../session/stdin-context.ts";

/** Unpacks a client's build context into a directory of its own, before there is an engine. */
export const contextArchiver: ContextArchiver = {
	async unpack({ path, dest }, { signal }) {
		const [{ createArchiver }, { createThreadPool }] = await Promise.all([
			import("../archive/archiver.ts"),
			import("../async/pool.ts"),
		]);
		await using pool = createThreadPool({ size: 1 });
		const archiver = createArchiver(pool);
		if (!(await archiver.isArchive(path, { signal }))) {
			return false;
		}
		await archiver.unpack({ path, dest, owner: { uid: 0, gid: 0 } }, { signal });
		return true;
	},
};
