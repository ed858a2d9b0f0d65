import { randomBytes } from "node:crypto";
import { canceled } from "../errors/errors.ts";
import type { BuildResult, ExportContext, Exporter } from "../exporter/exporter.ts";
import type { Job, StepContext } from "../solver/solver.ts";
import type { Output } from "../worker/worker.ts";

export interface ExportersContext extends Pick<ExportContext, "session" | "inlineCache" | "keepDocument"> {
	readonly job: Job<Output>;
	readonly result: BuildResult;
	/** What is wrong with the result as a whole, though it can be exported. */
	readonly warnings: readonly string[];
	readonly signal: AbortSignal;
}

/** All at the same time; answers in their order. The first that fails ends the others. */
export async function runExporters(
	exporters: readonly Exporter[],
	{ job, result, warnings, signal, ...context }: ExportersContext,
): Promise<readonly Readonly<Record<string, string>>[]> {
	if (exporters.length === 0) {
		await showWarnings(job, warnings, signal);
		return [];
	}
	const failed = new AbortController();
	const scope = AbortSignal.any([signal, failed.signal]);
	let first: { readonly error: unknown } | undefined;
	const running = exporters.map(async (exporter, index) => {
		const id = index === 0 ? exporter.name : `${exporter.name} ${index}`;
		try {
			return await job.step({ id, name: exporter.name, signal: scope }, (step) => {
				warn(step, index === 0 ? warnings : []);
				return exporter.export(result, { ...step, ...context, index });
			});
		} catch (error) {
			first ??= { error };
			failed.abort(canceled(error));
			throw error;
		}
	});
	const ended = await Promise.allSettled(running);
	if (first !== undefined) {
		throw first.error;
	}
	return ended.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
}

async function showWarnings(
	job: Job<Output>,
	warnings: readonly string[],
	signal: AbortSignal,
): Promise<void> {
	if (warnings.length > 0) {
		const name = "Verifying build result";
		await job.step({ id: randomBytes(16).toString("hex"), name, signal }, async (step) =>
			warn(step, warnings),
		);
	}
}

function warn({ progress, vertex }: StepContext, warnings: readonly string[]): void {
	for (const short of warnings) {
		progress.write({ kind: "warning", warning: { vertex, level: 0, short, detail: [] } });
	}
}
