import { mkdirSync } from "node:fs";
import { enableCompileCache } from "node:module";
import { join } from "node:path";

/** Where compiled code is kept between starts: a directory of the user's own, since who can write there can run code as him. */
function cacheDirectory(): string | undefined {
	const { XDG_CACHE_HOME: cache, HOME: home } = process.env;
	if (process.getuid?.() === 0) {
		return "/var/cache/slipway";
	}
	if (cache !== undefined && cache !== "") {
		return join(cache, "slipway");
	}
	return home === undefined || home === "" ? undefined : join(home, ".cache", "slipway");
}

const directory = cacheDirectory();
if (directory !== undefined) {
	try {
		mkdirSync(directory, { recursive: true, mode: 0o700 });
		enableCompileCache(directory);
	} catch {
		// Every start then compiles anew.
	}
}
// Only what is loaded from here on is kept; not a literal, so that the bundler leaves it a file of its own.
const commands = new URL(
	`./commands${import.meta.url.slice(import.meta.url.lastIndexOf("."))}`,
	import.meta.url,
);
await import(commands.href);
