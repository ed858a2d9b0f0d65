import { accessSync, constants } from "node:fs";
import { join } from "node:path";

/** The first of the name on a search path such as `PATH`; a name with a slash is itself the path. */
export function findProgram(name: string, searchPath: string): string | undefined {
	const paths = name.includes("/") ? [name] : searchPath.split(":").map((dir) => join(dir, name));
	return paths.find((path) => {
		try {
			accessSync(path, constants.X_OK);
			return true;
		} catch {
			return false;
		}
	});
}
