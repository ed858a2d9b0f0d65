import { posix } from "node:path";
import { SlipwayError } from "../../errors/errors.ts";
import { mkdir, mkfile } from "../../llb/file-steps.ts";
import { basePath, cleanPath, joinPath } from "../../llb/go-path.ts";
import type { ExecSecret, ExecSsh } from "../../llb/ops.ts";
import { type RunMount, type State, scratch } from "../../llb/state.ts";
import { encodeText } from "../../oci/byte-text.ts";
import { internalName } from "./build-context.ts";
import {
	commandDescription,
	displayCommand,
	environmentOf,
	type InstructionContext,
	locationOf,
	nextStepName,
} from "./conversion.ts";
import { trimSpace } from "./go-text.ts";
import { chompHeredoc, parseHeredocOrNone } from "./heredoc.ts";
import { addHistory, type ImageDraft } from "./image-draft.ts";
import type { ArgDeclaration, Mount, RunInstruction } from "./instructions.ts";
import type { Environment } from "./shell-words.ts";
import { applyVariables, type StageState } from "./stage-state.ts";

/** RUN, with the variables of its mounts replaced. `sources` has the stage that each mount is from. */
export function convertRun(
	stage: StageState,
	instruction: RunInstruction,
	{ sources, context }: { readonly sources: readonly StageState[]; readonly context: InstructionContext },
): void {
	const { settings, lexer, epoch } = context;
	// A process may look at any file.
	stage.usedPaths.add("/");
	const inline = inlineCommand(stage, instruction);
	const args = instruction.command.shell ? withShell(stage.image, inline.args) : inline.args;
	if (args.length === 0) {
		// BuildKit finds this out later and has no place for it then.
		throw invalid("failed to marshal LLB definition: arguments are required");
	}
	const mounts = convertMounts(stage, instruction, { sources, context });
	const env = environmentOf(stage);
	const name = nextStepName(stage, {
		text: displayCommand(
			instruction.source + inline.nameSuffix,
			{ ...lexer, rawQuotes: true, skipUnsetEnv: true },
			maskSecrets(instruction.mounts, env),
		),
		withPlatform: settings.multiPlatform,
		platform: stage.state.platform,
		env,
		trigger: context.trigger,
	});
	const shm: readonly RunMount[] =
		settings.shmSize > 0 ? [{ target: "/dev/shm", tmpfs: { size: settings.shmSize } }] : [];
	applyVariables(stage);
	const run = stage.state.run({
		args,
		mounts: [...inline.mounts, ...mounts.mounts, ...shm],
		secrets: mounts.secrets,
		ssh: mounts.ssh,
		devices: instruction.devices.map((device) => ({ name: device.name, optional: !device.required })),
		...(context.proxyEnv === undefined ? {} : { proxyEnv: context.proxyEnv }),
		name,
		description: commandDescription(instruction.source),
		locations: locationOf(context.file, instruction.ranges),
		ignoreCache: stage.ignoreCache,
		...(settings.resources === undefined ? {} : { linuxResources: settings.resources }),
		with: (state) => withLimits(state, instruction, context),
	});
	stage.state = run.root;
	const text = `RUN ${runHistory(args, stage.args, env)} # buildkit`;
	addHistory(stage.image, { text, layer: true, epoch });
}

function withLimits(
	state: State,
	{ network, security }: RunInstruction,
	{ settings }: InstructionContext,
): State {
	let limited = state.withSecurity(security);
	if (network !== "default") {
		limited = limited.withNetwork(network);
	}
	for (const { name, soft, hard } of settings.ulimits) {
		limited = limited.withUlimit(name, soft, hard);
	}
	for (const { host, ip } of settings.extraHosts) {
		limited = limited.withExtraHost(host, ip);
	}
	return settings.cgroupParent === "" ? limited : limited.withCgroupParent(settings.cgroupParent);
}

interface InlineCommand {
	readonly args: readonly string[];
	readonly mounts: readonly RunMount[];
	/** What the name of the step says about a heredoc. */
	readonly nameSuffix: string;
}

const documentDir = "/dev/pipes/";

function inlineCommand({ image }: StageState, { command, files }: RunInstruction): InlineCommand {
	const [file] = files;
	const [text, ...more] = command.words;
	if (file === undefined) {
		return { args: command.words, mounts: [], nameSuffix: "" };
	}
	if (text === undefined || more.length > 0 || !command.shell) {
		throw new SlipwayError(
			"invalid-argument",
			`parsing produced an invalid run command: [${command.words.join(" ")}]`,
		);
	}
	if (parseHeredocOrNone(text) === undefined) {
		// The shell itself has to know what to do with heredocs among other words.
		const bodies = files.map((each) => `\n${each.content}${each.name}`);
		return { args: [text + bodies.join("")], mounts: [], nameSuffix: "" };
	}
	const content = file.chomp ? chompHeredoc(file.content) : file.content;
	const nameSuffix = ` (${summarize(file.content)})`;
	if (image.platform.os === "windows" || !content.startsWith("#!")) {
		return { args: [content], mounts: [], nameSuffix };
	}
	const source = scratch()
		.withDir("/")
		.file(mkfile(file.name, 0o755, encodeText(content)), {
			name: internalName("preparing inline document"),
		});
	return {
		args: [joinPath(documentDir, file.name)],
		mounts: [{ target: documentDir, source, selector: "/", readonly: true }],
		nameSuffix,
	};
}

function summarize(document: string): string {
	const [first = "", ...more] = trimSpace(document).replaceAll("\r\n", "\n").split("\n");
	return more.length > 0 ? `${first}...` : first;
}

/** The words as one argument of the image's shell. */
export function withShell(image: ImageDraft, words: readonly string[]): readonly string[] {
	const byOs = image.platform.os === "windows" ? ["cmd", "/S", "/C"] : ["/bin/sh", "-c"];
	return [...(image.shell.length > 0 ? image.shell : byOs), words.join(" ")];
}

/** Values of secrets are never known here; a name says where one is used. */
function maskSecrets(mounts: readonly Mount[], env: Environment): Environment {
	const masked = new Set<string>();
	for (const mount of mounts) {
		if (mount.type === "secret" && mount.env !== undefined) {
			masked.add(mount.env);
		}
	}
	if (masked.size === 0) {
		return env;
	}
	return {
		get: (name) => (masked.has(name) ? "****" : env.get(name)),
		keys: () => new Set([...env.keys(), ...masked]),
	};
}

/** `|2 a=1 b=2 /bin/sh -c make`: the ARGs in scope, each once, and the command. */
function runHistory(args: readonly string[], declared: readonly ArgDeclaration[], env: Environment): string {
	const values = new Map<string, string>();
	for (const { key, value = "" } of declared) {
		values.set(key, env.get(key) ?? value);
	}
	const variables = [...values].map(([key, value]) => `${key}=${value}`);
	return [...(variables.length === 0 ? [] : [`|${variables.length}`]), ...variables, ...args].join(" ");
}

interface ConvertedMounts {
	readonly mounts: RunMount[];
	readonly secrets: ExecSecret[];
	readonly ssh: ExecSsh[];
}

function convertMounts(
	stage: StageState,
	instruction: RunInstruction,
	{ sources, context }: { readonly sources: readonly StageState[]; readonly context: InstructionContext },
): ConvertedMounts {
	const converted: ConvertedMounts = { mounts: [], secrets: [], ssh: [] };
	for (const [index, mount] of instruction.mounts.entries()) {
		const from = mount.from === "" && mount.type === "cache" ? "scratch" : mount.from;
		const source = from === "" ? undefined : sources[index];
		if (source !== undefined && !source.converted) {
			throw invalid(
				`cannot mount from stage ${JSON.stringify(from)} to ${JSON.stringify(mount.target)}, stage needs to be defined before current command`,
			);
		}
		switch (mount.type) {
			case "secret":
				converted.secrets.push(convertSecret(stage, mount, instruction));
				break;
			case "ssh":
				converted.ssh.push(convertSsh(stage, mount, instruction));
				break;
			case "bind":
			case "cache":
			case "tmpfs":
				converted.mounts.push(convertMount(stage, mount, source?.state ?? context.buildContext, context));
				(source?.usedPaths ?? stage.contextPaths).add(joinPath("/", mount.source));
				break;
		}
	}
	return converted;
}

function convertMount(
	stage: StageState,
	mount: Mount,
	from: State,
	{ settings }: InstructionContext,
): RunMount {
	const target = posix.isAbsolute(mount.target) ? mount.target : joinPath("/", stage.state.dir, mount.target);
	if (target === "/") {
		throw invalid(`invalid mount target ${JSON.stringify(target)}`);
	}
	const path = joinPath("/", mount.source);
	const owned = mount.uid !== undefined || mount.gid !== undefined || mount.mode !== undefined;
	const source = mount.type === "tmpfs" ? scratch() : from;
	const { cacheNamespace } = settings;
	return {
		target,
		source: path === "/" && owned ? withCacheDirectory(source, mount) : source,
		...(path !== "/" ? { selector: path } : owned ? { selector: "/cache" } : {}),
		...(mount.readOnly ? { readonly: true } : mount.type === "bind" ? { noOutput: true } : {}),
		...(mount.type === "tmpfs" ? { tmpfs: { size: mount.sizeLimit } } : {}),
		...(mount.type === "cache"
			? {
					cache: {
						id: `${cacheNamespace}/${mount.id === "" ? cleanPath(mount.target === "" ? "." : mount.target) : mount.id}`,
						sharing: mount.sharing ?? "shared",
					},
				}
			: {}),
	};
}

function withCacheDirectory(source: State, { mode = 0o755, uid = 0, gid = 0 }: Mount): State {
	const owner = { user: { kind: "id", id: uid }, group: { kind: "id", id: gid } } as const;
	return source.file(mkdir("/cache", mode, { owner }), {
		name: internalName("setting cache mount permissions"),
	});
}

function convertSecret(stage: StageState, mount: Mount, { ranges }: RunInstruction): ExecSecret {
	const given = mount.source === "" ? mount.id : mount.source;
	const id = given === "" ? basePath(mount.target) : given;
	const target =
		mount.target !== "" ? mount.target : mount.env === undefined ? `/run/secrets/${basePath(id)}` : undefined;
	if (!stage.outline.secrets.has(id)) {
		stage.outline.secrets.set(id, { required: mount.required, ranges });
	}
	return {
		id,
		...(target === undefined ? {} : { target }),
		...(mount.env === undefined ? {} : { env: mount.env }),
		optional: !mount.required,
		...fileMode(mount, 0o400),
	};
}

function convertSsh(stage: StageState, mount: Mount, { ranges }: RunInstruction): ExecSsh {
	if (mount.source !== "") {
		throw invalid("ssh does not support source");
	}
	const id = mount.id === "" ? "default" : mount.id;
	if (!stage.outline.ssh.has(id)) {
		stage.outline.ssh.set(id, { required: mount.required, ranges });
	}
	return {
		id: mount.id,
		...(mount.target === "" ? {} : { target: mount.target }),
		optional: !mount.required,
		...fileMode(mount, 0o600),
	};
}

function fileMode(
	{ mode, uid, gid }: Mount,
	defaultMode: number,
): { readonly mode?: number; readonly uid?: number; readonly gid?: number } {
	return mode === undefined && uid === undefined && gid === undefined
		? {}
		: { mode: mode ?? defaultMode, uid: uid ?? 0, gid: gid ?? 0 };
}

function invalid(message: string): SlipwayError {
	return new SlipwayError("invalid-argument", message);
}
