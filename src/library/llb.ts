// biome-ignore-all lint/performance/noBarrelFile: an entry of the package is what others import from.
/** `import … from "slipway/llb"`: build graphs, as BuildKit's Go package `llb` makes them, to the same bytes. */
export { decodeDefinition, encodeDefinition } from "../llb/definition-message.ts";
export * from "../llb/file-steps.ts";
export type { Constraints, Definition, Output } from "../llb/llb.ts";
export type { MarshalOptions } from "../llb/marshal.ts";
export type {
	Device,
	ExtraHost,
	NetworkMode,
	ProxyEnv,
	SecurityMode,
	Ulimit,
} from "../llb/op.ts";
export type { CopyOptions, ExecMount, ExecSecret, ExecSsh, FileStep, NewFileOptions } from "../llb/ops.ts";
export * from "../llb/sources.ts";
export {
	diff,
	ExecState,
	merge,
	type RunMount,
	type RunOptions,
	State,
	type StateValues,
	scratch,
} from "../llb/state.ts";
export type { ImageConfig } from "../oci/image-config.ts";
export type { Platform } from "../oci/platform.ts";
