import { constants } from "node:os";
import type * as pb from "../../api/generated/gateway.ts";
import type { MessageStream, ServerCall } from "../../api/grpc.ts";
import { statusOf } from "../../api/status.ts";
import { findDetail, SlipwayError } from "../../errors/errors.ts";
import type { SecurityMode } from "../../llb/op.ts";
import type { ContainerProcess, FrontendContainer } from "../frontend.ts";
import { wireError } from "../wire-error.ts";
import { InputQueue } from "./input-queue.ts";

type Stream = MessageStream<pb.ExecMessage, pb.ExecMessage>;

export interface ProcessServices {
	/** Throws for an id that is none. */
	readonly containerOf: (id: string) => FrontendContainer;
	readonly securityOf: (mode: number) => SecurityMode;
}

/**
 * One `ExecProcess` call: several processes, each with its streams. To the client for each process, in this order: `Started`, its
 * output, `EOF` of each output, and when the process has ended `Exit`; last `Done`. Ends when the client has closed its side and all
 * processes are done, or with the first error; processes that still run then are killed: nobody could hear of them.
 */
export async function runProcesses(
	stream: Stream,
	call: ServerCall,
	services: ProcessServices,
): Promise<void> {
	const processes = new Map<string, ExecProcess>();
	const { promise: failed, reject: fail } = Promise.withResolvers<never>();
	failed.catch(() => {});
	const read = async (): Promise<void> => {
		for await (const message of stream) {
			await take(message);
		}
	};

	async function take({ ProcessID: id, Input: input }: pb.ExecMessage): Promise<void> {
		if (id === "") {
			throw new SlipwayError("invalid-argument", "ProcessID required");
		}
		const process = processes.get(id);
		if (input?.$case === "Init") {
			if (process !== undefined) {
				throw new SlipwayError("already-exists", `Process ${id} already exists`);
			}
			const started = new ExecProcess(id, input.value, stream);
			processes.set(id, started);
			await started.start(services);
			started.done.catch(fail);
			return;
		}
		if (input?.$case !== "File" && input?.$case !== "Resize" && input?.$case !== "Signal") {
			return;
		}
		if (process === undefined) {
			throw new SlipwayError("not-found", `IO for process ${JSON.stringify(id)} not found`);
		}
		if (input.$case === "File") {
			await process.write(input.value);
		} else if (input.$case === "Resize") {
			process.resize({ rows: input.value.Rows, columns: input.value.Cols });
		} else {
			process.signal(input.value.Name);
		}
	}

	const abort = (): void => fail(call.signal.reason);
	call.signal.addEventListener("abort", abort, { once: true });
	try {
		await Promise.race([read(), failed]);
		await Promise.race([Promise.all([...processes.values()].map((each) => each.done)), failed]);
	} finally {
		call.signal.removeEventListener("abort", abort);
		for (const process of processes.values()) {
			process.end();
		}
	}
}

class ExecProcess {
	readonly #id: string;
	readonly #init: pb.InitMessage;
	readonly #stream: Stream;
	readonly #stdin: InputQueue | undefined;
	/** Output from before `Started` was sent; nobody waits for it, because a process may end before it counts as started. */
	#early: pb.FdMessage[] | undefined = [];
	#process: ContainerProcess | undefined;
	#stdinOpen: boolean;
	readonly #done = Promise.withResolvers<void>();

	constructor(id: string, init: pb.InitMessage, stream: Stream) {
		this.#id = id;
		this.#init = init;
		this.#stream = stream;
		this.#stdinOpen = init.Fds.includes(0);
		this.#stdin = this.#stdinOpen ? new InputQueue() : undefined;
		this.#done.promise.catch(() => {});
	}

	/** Resolves when all is sent. */
	get done(): Promise<void> {
		return this.#done.promise;
	}

	async start({ containerOf, securityOf }: ProcessServices): Promise<void> {
		const { ContainerID: container, Meta: meta, Fds: fds, Tty: terminal, Security: security } = this.#init;
		this.#process = await containerOf(container).start({
			args: meta?.args ?? [],
			env: meta?.env ?? [],
			secretEnv: this.#init.secretenv.map(({ ID: id, name, optional }) => ({ id, name, optional })),
			cwd: meta?.cwd ?? "",
			user: meta?.user ?? "",
			security: securityOf(security),
			terminal,
			stdin: this.#stdin,
			onStdout: fds.includes(1) ? (chunk) => this.#output(1, chunk) : undefined,
			onStderr: fds.includes(2) ? (chunk) => this.#output(2, chunk) : undefined,
			removeMountStubsRecursive: meta?.removeMountStubsRecursive ?? false,
		});
		await this.#send({ $case: "Started", value: {} });
		await this.#flush();
		this.#finish(this.#process).then(this.#done.resolve, this.#done.reject);
	}

	async write({ Fd: fd, EOF: isEnd, Data: data }: pb.FdMessage): Promise<void> {
		if (fd !== 0 || !this.#stdinOpen || this.#stdin === undefined) {
			throw new SlipwayError("out-of-range", `fd ${fd} unavailable to write`);
		}
		if (data.length > 0) {
			await this.#stdin.push(data);
		}
		if (isEnd) {
			this.#stdinOpen = false;
			this.#stdin.end();
		}
	}

	resize(size: { readonly rows: number; readonly columns: number }): void {
		this.#process?.resize(size);
	}

	signal(name: string): void {
		const signal = `SIG${name}` as NodeJS.Signals;
		if (!(signal in constants.signals)) {
			throw new SlipwayError("invalid-argument", `Unknown signal ${name}`);
		}
		this.#process?.signal(signal);
	}

	/** After the process has ended it does nothing. */
	end(): void {
		this.#stdin?.stop();
		this.#process?.signal("SIGKILL");
	}

	async #finish(process: ContainerProcess): Promise<void> {
		let exit: pb.ExitMessage = { Code: 0, Error: undefined };
		try {
			const code = await process.exited;
			if (code !== 0) {
				const error = new SlipwayError("unknown", `exit code: ${code}`, {
					details: [{ kind: "exit", code }],
				});
				exit = { Code: code, Error: statusOf(error) };
			}
		} catch (error) {
			exit = { Code: findDetail(error, "exit")?.code ?? unknownExit, Error: statusOf(wireError(error)) };
		}
		this.#stdin?.stop();
		for (const fd of this.#init.Fds) {
			if (fd !== 0) {
				await this.#send({ $case: "File", value: { Fd: fd, EOF: true, Data: new Uint8Array() } });
			}
		}
		await this.#send({ $case: "Exit", value: exit });
		await this.#send({ $case: "Done", value: {} });
	}

	/** What came in the meantime too. */
	async #flush(): Promise<void> {
		while (this.#early !== undefined) {
			const early = this.#early;
			this.#early = early.length === 0 ? undefined : [];
			for (const value of early) {
				await this.#send({ $case: "File", value });
			}
		}
	}

	#output(fd: number, data: Uint8Array): Promise<void> | undefined {
		const value = { Fd: fd, EOF: false, Data: data };
		if (this.#early !== undefined) {
			this.#early.push(value);
			return undefined;
		}
		return this.#send({ $case: "File", value });
	}

	async #send(input: NonNullable<pb.ExecMessage["Input"]>): Promise<void> {
		await this.#stream.send({ ProcessID: this.#id, Input: input });
	}
}

/** BuildKit's, for a process whose exit code nobody knows. */
const unknownExit = 255;
