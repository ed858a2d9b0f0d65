import type { SourceFile, SourceRange } from "../../errors/errors.ts";

/**
 * Pass two of the Dockerfile frontend: what the instructions say, as values. `parse-instructions.ts` makes them,
 * `expand-instruction.ts` replaces the variables in them, the converter turns them into build steps. Texts that may
 * hold variables keep their quotes, escapes and `$` until then.
 */
export type Instruction =
	| AddInstruction
	| ArgInstruction
	| CmdInstruction
	| CopyInstruction
	| EntrypointInstruction
	| EnvInstruction
	| ExposeInstruction
	| HealthcheckInstruction
	| LabelInstruction
	| MaintainerInstruction
	| OnbuildInstruction
	| RunInstruction
	| ShellInstruction
	| StopsignalInstruction
	| UserInstruction
	| VolumeInstruction
	| WorkdirInstruction;

/** FROM and the instructions up to the next one. */
export interface Stage {
	readonly kind: "from";
	/** The instruction word as it is written. */
	readonly keyword: string;
	/** Lower case; empty for none. */
	readonly name: string;
	readonly baseName: string;
	/** Empty for none. */
	readonly platform: string;
	readonly source: string;
	readonly ranges: readonly SourceRange[];
	readonly comments: readonly string[];
	/** The text of a comment `# <name> <text>` above; empty for none. */
	readonly description: string;
	readonly instructions: readonly Instruction[];
}

export interface ParsedStages {
	readonly file: SourceFile;
	/** May be empty. */
	readonly stages: readonly Stage[];
	/** The ARGs before the first FROM. */
	readonly metaArgs: readonly ArgInstruction[];
}

interface Common {
	/** The instruction word as it is written, for messages. */
	readonly keyword: string;
	/** The logical line, trimmed: the name of the step. */
	readonly source: string;
	readonly ranges: readonly SourceRange[];
	/** The comment lines above. */
	readonly comments: readonly string[];
}

export interface KeyValue {
	readonly key: string;
	readonly value: string;
	/** Written without `=`. */
	readonly legacy: boolean;
}

export interface EnvInstruction extends Common {
	readonly kind: "env";
	readonly pairs: readonly KeyValue[];
}

export interface LabelInstruction extends Common {
	readonly kind: "label";
	readonly pairs: readonly KeyValue[];
}

export interface ArgInstruction extends Common {
	readonly kind: "arg";
	readonly args: readonly ArgDeclaration[];
}

export interface ArgDeclaration {
	readonly key: string;
	/** Absent for `ARG key`; empty for `ARG key=`. */
	readonly value?: string;
	/** The text of a comment `# <key> <text>` above; empty for none. */
	readonly description: string;
}

export interface MaintainerInstruction extends Common {
	readonly kind: "maintainer";
	readonly maintainer: string;
}

/** What ADD and COPY share. */
interface Transfer extends Common {
	readonly sources: readonly string[];
	readonly documents: readonly InlineDocument[];
	readonly destination: string;
	/** Empty for none. */
	readonly chown: string;
	/** Empty for none. */
	readonly chmod: string;
	readonly link: boolean;
	readonly exclude: readonly string[];
}

/** A heredoc as a source; its leading tabs are already gone for `<<-`. */
export interface InlineDocument {
	readonly name: string;
	readonly content: string;
	readonly expand: boolean;
}

export interface AddInstruction extends Transfer {
	readonly kind: "add";
	/** Empty for none. */
	readonly checksum: string;
	/** Absent if the flag was not given. */
	readonly keepGitDir?: boolean;
	/** Absent if the flag was not given. */
	readonly unpack?: boolean;
}

export interface CopyInstruction extends Transfer {
	readonly kind: "copy";
	/** A stage, an index, a context or an image; empty for the build context. Not expanded. */
	readonly from: string;
	readonly parents: boolean;
}

/** A command in shell form (`shell` is true, one text) or in JSON form. */
export interface CommandLine {
	readonly words: readonly string[];
	readonly shell: boolean;
}

export interface CmdInstruction extends Common {
	readonly kind: "cmd";
	readonly command: CommandLine;
}

export interface EntrypointInstruction extends Common {
	readonly kind: "entrypoint";
	readonly command: CommandLine;
}

export interface RunInstruction extends Common {
	readonly kind: "run";
	readonly command: CommandLine;
	/** The heredocs of the line, in order. */
	readonly files: readonly InlineFile[];
	/** The `--mount` values as written; `expandInstruction` reads `mounts` from them. */
	readonly mountFlags: readonly string[];
	/** One for each flag. Before expansion only `from` is known, all else has the defaults of a bind mount. */
	readonly mounts: readonly Mount[];
	readonly network: "default" | "none" | "host";
	readonly security: "sandbox" | "insecure";
	readonly devices: readonly Device[];
}

/** A heredoc of RUN with its tabs; see `chompHeredoc`. */
export interface InlineFile {
	readonly name: string;
	readonly content: string;
	readonly chomp: boolean;
}

export type MountType = "bind" | "cache" | "tmpfs" | "secret" | "ssh";
export type CacheSharing = "shared" | "private" | "locked";

/** `RUN --mount`. Empty texts were not given. */
export interface Mount {
	readonly type: MountType;
	readonly from: string;
	readonly source: string;
	readonly target: string;
	readonly readOnly: boolean;
	/** Bytes; 0 for no limit. */
	readonly sizeLimit: number;
	readonly id: string;
	readonly sharing: CacheSharing | undefined;
	readonly required: boolean;
	/** The variable for a secret; empty means its default name. */
	readonly env: string | undefined;
	readonly mode: number | undefined;
	readonly uid: number | undefined;
	readonly gid: number | undefined;
}

/** `RUN --device`. */
export interface Device {
	readonly name: string;
	readonly required: boolean;
}

export interface ExposeInstruction extends Common {
	readonly kind: "expose";
	/** Sorted; after expansion in the order that it gave. */
	readonly ports: readonly string[];
}

export interface HealthcheckInstruction extends Common {
	readonly kind: "healthcheck";
	/** `["NONE"]`, `["CMD", ...]` or `["CMD-SHELL", text]`. */
	readonly test: readonly string[];
	/** Nanoseconds, as all durations here; 0 inherits. */
	readonly interval: number;
	readonly timeout: number;
	readonly startPeriod: number;
	readonly startInterval: number;
	readonly retries: number;
}

export interface OnbuildInstruction extends Common {
	readonly kind: "onbuild";
	/** The text of the instruction, heredoc bodies included, to be parsed when it triggers. */
	readonly expression: string;
}

export interface ShellInstruction extends Common {
	readonly kind: "shell";
	readonly shell: readonly string[];
}

export interface StopsignalInstruction extends Common {
	readonly kind: "stopsignal";
	readonly signal: string;
}

export interface UserInstruction extends Common {
	readonly kind: "user";
	readonly user: string;
}

export interface VolumeInstruction extends Common {
	readonly kind: "volume";
	readonly volumes: readonly string[];
}

export interface WorkdirInstruction extends Common {
	readonly kind: "workdir";
	readonly path: string;
}
