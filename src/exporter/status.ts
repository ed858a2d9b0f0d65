import { progressTime, type StatusRecord } from "../progress/progress.ts";
import type { StepContext } from "../solver/solver.ts";

/** Shows a part of the step while it lasts; it counts as completed also when it fails, as in BuildKit. */
export async function withStatus<T>(context: StepContext, id: string, work: () => Promise<T>): Promise<T> {
	const report = reporter(context, id, "");
	report({ current: 0 });
	try {
		return await work();
	} finally {
		report({ current: 0, completed: progressTime() });
	}
}

const intervalMs = 100;

/** The same for work that counts bytes. */
export async function withByteStatus<T>(
	context: StepContext,
	id: string,
	work: (onBytes: (total: number) => void) => Promise<T>,
): Promise<T> {
	const report = reporter(context, id, "transferring");
	let current = 0;
	let reported = 0;
	report({ current });
	try {
		return await work((total) => {
			current = total;
			const now = progressTime();
			if (now - reported >= intervalMs) {
				reported = now;
				report({ current });
			}
		});
	} finally {
		report({ current, completed: progressTime() });
	}
}

function reporter(
	{ progress, vertex }: StepContext,
	id: string,
	name: string,
): (values: Pick<StatusRecord, "current" | "completed">) => void {
	const started = progressTime();
	return (values) => {
		progress.write({
			kind: "status",
			status: { vertex, id, name, total: 0, timestamp: progressTime(), started, ...values },
		});
	};
}
