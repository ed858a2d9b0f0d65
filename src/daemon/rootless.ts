import { inUserNamespace } from "../sys/namespace.ts";

/** True if root is only that of a user namespace here. */
export function isRootless(): boolean {
	return inUserNamespace();
}
