import assert from "node:assert/strict";
import { test } from "node:test";
import { type Digest, sha256 } from "../oci/digest.ts";
import { createDisplay, type DisplayOptions } from "./display.ts";
import { prefixProgress } from "./prefix.ts";
import type { ProgressDisplay, ProgressEvent, StatusRecord, VertexRecord } from "./progress.ts";

const start = 1_700_000_000_000;

/** A display with a clock that stands still unless the test moves it, and a ticker that the test drives. */
class Bench {
	text = "";
	now = start;
	isTicking = false;
	tick: () => void = () => {};
	readonly display: ProgressDisplay;

	constructor(
		options: Partial<DisplayOptions> & { readonly mode: string },
		size?: readonly [columns: number, rows: number],
	) {
		this.display = createDisplay({
			out: {
				write: (piece) => (this.text += piece),
				isTTY: size !== undefined,
				columns: size?.[0],
				rows: size?.[1],
			},
			now: () => this.now,
			ticker: {
				start: (_, tick) => {
					this.isTicking = true;
					this.tick = tick;
					return { reset: () => {}, stop: () => (this.isTicking = false) };
				},
			},
			...options,
		});
	}

	/** Lets `ms` pass and writes a batch. */
	async after(ms: number, ...events: readonly ProgressEvent[]): Promise<void> {
		this.now += ms;
		for (const event of events) {
			this.display.write(event);
		}
		await Promise.resolve();
	}

	/** What was written since the last call. */
	take(): string {
		const { text } = this;
		this.text = "";
		return text;
	}
}

const id = (name: string): Digest => sha256(name);

/** Times in milliseconds from the start of the build. */
function vertex(
	name: string,
	times: readonly [started?: number, completed?: number],
	more: Partial<VertexRecord> = {},
): ProgressEvent {
	const [started, completed] = times;
	return {
		kind: "vertex",
		vertex: {
			digest: id(name),
			inputs: [],
			name,
			cached: false,
			...(started === undefined ? {} : { started: start + started }),
			...(completed === undefined ? {} : { completed: start + completed }),
			...more,
		},
	};
}

function log(name: string, at: number, text: string): ProgressEvent {
	return {
		kind: "log",
		log: { vertex: id(name), stream: 1, data: Buffer.from(text), timestamp: start + at },
	};
}

function status(name: string, statusId: string, at: number, more: Partial<StatusRecord> = {}): ProgressEvent {
	return {
		kind: "status",
		status: {
			vertex: id(name),
			id: statusId,
			name: "",
			current: 0,
			total: 0,
			timestamp: start + at,
			started: start,
			...more,
		},
	};
}

function warning(name: string, short: string): ProgressEvent {
	return { kind: "warning", warning: { vertex: id(name), level: 1, short, detail: [] } };
}

test("createDisplay: modes", () => {
	const out = { write: () => {} };
	assert.throws(() => createDisplay({ mode: "fancy", out }), {
		code: "invalid-argument",
		message: "invalid progress mode fancy",
	});
	assert.throws(() => createDisplay({ mode: "tty", out }), { message: /^failed to get console: / });
	const quiet = new Bench({ mode: "quiet" });
	quiet.display.write(vertex("a", [0, 1]));
	quiet.display.end();
	assert.equal(quiet.text, "");
	const auto = new Bench({ mode: "auto" });
	auto.display.write(vertex("a", [0, 1000]));
	auto.display.end();
	assert.equal(auto.text, "#1 a\n#1 DONE 1.0s\n");
});

test("createDisplay: the default ticker does not keep the process alive, and end stops it", async () => {
	const before = process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;
	const display = createDisplay({ mode: "plain", out: { write: () => {} } });
	assert.equal(process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length, before);
	display.end();
	const bench = new Bench({ mode: "plain" });
	assert.equal(bench.isTicking, true);
	bench.display.end();
	assert.equal(bench.isTicking, false);
	await bench.after(0, vertex("late", [0, 1]));
	assert.equal(bench.text, "");
});

test("plain: interleaved steps take turns, finished ones come first", async () => {
	const bench = new Bench({ mode: "plain", description: "building here" });
	await bench.after(
		0,
		vertex("a", [0]),
		vertex("b", [0]),
		log("a", 10, "a1\na2 begins"),
		log("b", 11, "b1\n"),
	);
	assert.equal(bench.take(), "#0 building here\n\n#1 a\n#1 0.010 a1\n#1 0.010 a2 begins");
	await bench.after(50, log("a", 60, " and ends\n"));
	assert.equal(bench.take(), "", "a second drawing within 100 ms");
	await bench.after(100, log("b", 150, "b2\n"));
	assert.equal(bench.take(), " and ends\n");
	await bench.after(100, log("a", 250, "a3 begins"), vertex("b", [0, 250]));
	assert.equal(
		bench.take(),
		"\n#1 ...\n\n#2 b\n#2 0.011 b1\n#2 0.150 b2\n#2 DONE 0.3s\n\n#1 a\n#1 0.250 a3 begins".replace(
			"0.3s",
			"0.2s",
		),
	);
	await bench.after(10_000, vertex("c", [10_250, 12_250], { cached: true }));
	assert.equal(bench.take(), "\n#1 ...\n\n#3 c\n#3 CACHED\n");
	bench.tick();
	assert.equal(bench.take(), "\n#1 a\n#1 0.250 a3 begins");
	bench.display.end();
	assert.equal(bench.take(), "");
});

test("plain: a step with more to say gets the foreground after a while", async () => {
	const bench = new Bench({ mode: "plain" });
	await bench.after(0, vertex("slow", [0]), log("slow", 0, "x\n"));
	assert.equal(bench.take(), "#1 slow\n#1 0.000 x\n");
	for (let i = 1; i <= 6; i++) {
		await bench.after(1000, ...(i === 1 ? [vertex("busy", [1000])] : []), log("busy", i * 1000, `${i}\n`));
	}
	assert.equal(bench.take(), "");
	await bench.after(1000, log("busy", 7000, "7\n"));
	assert.match(bench.take(), /^#1 \.\.\.\n\n#2 busy\n#2 0\.000 1\n(#2 \d\.000 \d\n){6}$/);
});

test("plain: statuses are printed at each twentieth or after five seconds", async () => {
	const bench = new Bench({ mode: "plain" });
	const mb = (n: number): Partial<StatusRecord> => ({ current: n * 1e6, total: 100e6 });
	await bench.after(0, vertex("pull", [0]), status("pull", "layer", 0, mb(0)));
	assert.equal(bench.take(), "#1 pull\n#1 layer 0B / 100.00MB\n");
	await bench.after(200, status("pull", "layer", 200, mb(4)));
	assert.equal(bench.take(), "");
	await bench.after(200, status("pull", "layer", 400, mb(5)));
	assert.equal(bench.take(), "#1 layer 5.00MB / 100.00MB 0.4s\n");
	await bench.after(5000, status("pull", "layer", 5400, mb(6)));
	assert.equal(bench.take(), "#1 layer 6.00MB / 100.00MB 5.4s\n");
	await bench.after(200, status("pull", "layer", 5600, { ...mb(100), completed: start + 5600 }));
	assert.equal(bench.take(), "#1 layer 100.00MB / 100.00MB 5.6s done\n");
	await bench.after(200, status("pull", "other", 5800, { current: 12 }), vertex("pull", [0, 5800]));
	assert.equal(bench.take(), "#1 other 12B 5.8s\n", "not done while a status is open");
	await bench.after(200, status("pull", "other", 6000, { current: 12, completed: start + 6000 }));
	assert.equal(bench.take(), "#1 other 12B 6.0s done\n#1 DONE 5.8s\n");
});

test("plain: outcomes, warnings and the tail of a failed step", async () => {
	const bench = new Bench({ mode: "plain" });
	await bench.after(
		0,
		vertex("fails", [0, 100], { error: "process did not complete successfully: exit code: 1" }),
		vertex("stopped", [0, 200], { error: "x: context canceled" }),
		vertex("warns", [0, 300]),
		warning("warns", "be careful"),
		...Array.from({ length: 12 }, (_, i) => log("fails", 50, `line ${i + 1}\n`)),
		log("fails", 60, "last"),
	);
	bench.display.end();
	const lines = Array.from({ length: 12 }, (_, i) => `0.050 line ${i + 1}`);
	assert.equal(
		bench.take(),
		[
			"#1 fails",
			...lines.map((line) => `#1 ${line}`),
			"#1 0.060 last",
			"#1 ERROR: process did not complete successfully: exit code: 1",
			"",
			"#2 stopped",
			"#2 CANCELED",
			"",
			"#3 warns",
			"#3 WARN: be careful",
			"#3 DONE 0.3s",
			"------",
			" > fails:",
			...lines.slice(-9),
			"0.060 last",
			"------",
			"",
		].join("\n"),
	);
});

test("plain: a group shows as one step, cached if all members are", async () => {
	const bench = new Bench({ mode: "plain" });
	const group = (weak: boolean) => ({ progressGroup: { id: "g", name: "the group", weak } });
	await bench.after(0, vertex("weak", [0, 100], group(true)));
	assert.equal(bench.take(), "", "hidden while only weak members have started");
	await bench.after(1000, vertex("strong", [1000], group(false)), log("strong", 1500, "hello\n"));
	assert.equal(bench.take(), "#1 the group\n#1 0.500 hello\n");
	await bench.after(1000, vertex("strong", [1000, 2000], { ...group(false) }));
	assert.equal(bench.take(), "#1 DONE 1.1s\n");
	const cached = { cached: true };
	await bench.after(
		1000,
		vertex("one", [3000, 3000], { ...cached, progressGroup: { id: "h", name: "other", weak: false } }),
		vertex("two", [3000, 3000], { ...cached, progressGroup: { id: "h", name: "other", weak: true } }),
	);
	assert.equal(bench.take(), "\n#2 other\n#2 CACHED\n");
});

test("plain: runs of the same step are added up, without their overlap", async () => {
	const bench = new Bench({ mode: "plain" });
	await bench.after(0, vertex("a", [0, 1000]), vertex("a", [500, 1500]), vertex("a", [3000, 4000]));
	assert.equal(bench.take(), "#1 a\n#1 DONE 2.5s\n");
});

test("plain: names are cut only if asked for", async () => {
	const name = `${"é".repeat(40)}`;
	const whole = new Bench({ mode: "plain" });
	await whole.after(0, vertex(name, [0]));
	assert.equal(whole.take(), `#1 ${name}\n`);
	const cut = new Bench({ mode: "plain", env: { PROGRESS_NO_TRUNC: "0" } });
	await cut.after(0, vertex(name, [0]));
	assert.equal(cut.take(), `#1 ${"é".repeat(36)}...\n`);
});

test("plain: a large log in small pieces costs linear time", async () => {
	const bench = new Bench({ mode: "plain" });
	await bench.after(0, vertex("a", [0]));
	const piece = "0123456789".repeat(10);
	let length = 0;
	for (let i = 0; i < 20_000; i++) {
		bench.display.write(log("a", 1, i % 1000 === 999 ? `${piece}\n` : piece));
		if (i % 10 === 0) {
			await bench.after(10);
			length += bench.take().length;
		}
	}
	bench.display.end();
	length += bench.take().length;
	assert.ok(length > 20_000 * piece.length && length < 20_000 * piece.length + 2000, `${length}`);
});

test("tty: many lines of a log cost linear time", async () => {
	const bench = new Bench({ mode: "tty" }, [60, 20]);
	await bench.after(0, vertex("a", [0]));
	for (let i = 0; i < 50_000; i++) {
		bench.display.write(log("a", 1, `line ${i}\n`));
		if (i % 100 === 0) {
			await bench.after(1);
		}
	}
	await bench.after(1, vertex("a", [0, 10], { error: "no" }));
	bench.take();
	bench.display.end();
	assert.equal(bench.take().match(/^0\.001 line /gm)?.length, 50_000);
});

test("prefixProgress: names of targets", async () => {
	const bench = new Bench({ mode: "plain" });
	const sink = prefixProgress(bench.display, "app");
	sink.write(vertex("[internal] load", [0, 0]));
	sink.write(vertex("exporting", [1, 1]));
	sink.write(vertex("member", [2, 2], { progressGroup: { id: "g", name: "[1/2] COPY", weak: false } }));
	sink.write(log("exporting", 1, "x\n"));
	bench.display.end();
	assert.equal(
		bench.take(),
		"#1 [app internal] load\n#1 DONE 0.0s\n\n#2 [app] exporting\n#2 0.000 x\n#2 DONE 0.0s\n\n#3 [app 1/2] COPY\n#3 DONE 0.0s\n",
	);
});

/** The lines of the last frame, without escape sequences. */
function lastFrame(text: string): readonly string[] {
	const frame = text.slice(text.lastIndexOf("\x1b[?25l"));
	return frame.replace(/\x1b\[[\d;?]*[A-Za-z]/g, "").split("\n");
}

test("tty: rows, colors and the frame that replaces the last one", async () => {
	const bench = new Bench({ mode: "tty", consoleDescription: "here" }, [60, 20]);
	await bench.after(
		0,
		vertex("a\tb", [0]),
		status("a\tb", "sha256:1", 0, { current: 1500, total: 3e6 }),
		vertex("c", []),
	);
	const first = bench.take();
	assert.ok(first.startsWith("\x1b[1A\x1b[1B\x1b[0G\x1b[?25l[+] Building 0.0s (0/2)"));
	assert.deepEqual(lastFrame(first), [
		"[+] Building 0.0s (0/2)                                here",
		" => a b                                                0.0s",
		" => => sha256:1 1.50kB / 3.00MB                        0.0s",
		"",
	]);
	await bench.after(
		2000,
		vertex("a\tb", [0, 1500], { error: "no" }),
		vertex("c", [0, 100], { cached: true }),
		vertex("d", [0, 1], { error: "context canceled" }),
	);
	const second = bench.take();
	assert.ok(second.startsWith("\x1b[1A\x1b[1A\x1b[1A\x1b[0G\x1b[?25l"), "three lines up");
	assert.ok(second.includes("\x1b[31m => ERROR a b"));
	assert.ok(second.includes("\x1b[34m => CACHED c"));
	assert.ok(second.includes("\x1b[33m => CANCELED d"));
	bench.display.end();
	assert.deepEqual(lastFrame(bench.take()).slice(0, 2), [
		"[+] Building 2.0s (3/3) FINISHED                       here",
		" => ERROR a b                                          1.5s",
	]);
});

test("tty: a redraw comes with a batch after 100 ms or with a tick", async () => {
	const bench = new Bench({ mode: "tty" }, [60, 20]);
	await bench.after(0, vertex("a", [0]));
	bench.take();
	await bench.after(99, vertex("b", [99]));
	assert.equal(bench.take(), "");
	bench.tick();
	assert.match(bench.take(), / => b /);
	await bench.after(1, vertex("c", [100]));
	assert.match(bench.take(), / => c /);
});

test("tty: logs of running steps in boxes, as a terminal would show them", async () => {
	const bench = new Bench({ mode: "tty" }, [60, 20]);
	await bench.after(0, vertex("a", [0]), log("a", 1, "10%\r20%\r\x1b[1;32m30%\x1b[0m\n世界\n"));
	const box = (text: string): string => ` => => # ${text}`;
	const lines = lastFrame(bench.take());
	assert.equal(lines[2]?.trimEnd(), box("30%"));
	assert.equal(lines[3]?.trimEnd(), box("世界"));
	await bench.after(200, log("a", 2, Array.from({ length: 100 }, (_, i) => `line ${i}\n`).join("")));
	assert.deepEqual(
		lastFrame(bench.take())
			.slice(2, -1)
			.map((line) => line.trimEnd()),
		[94, 95, 96, 97, 98, 99].map((i) => box(`line ${i}`)),
	);
	await bench.after(200, vertex("a", [0, 300]));
	assert.equal(lastFrame(bench.take()).filter((line) => line.includes("=> #")).length, 0);
});

test("tty: a failed step's whole log comes at the end, others are forgotten", async () => {
	const bench = new Bench({ mode: "tty" }, [60, 20]);
	await bench.after(
		0,
		vertex("good", [0]),
		vertex("bad", [0]),
		log("good", 1, "g\n"),
		log("bad", 1, "b\n".repeat(20)),
	);
	await bench.after(10, vertex("good", [0, 10]), vertex("bad", [0, 10], { error: "no" }));
	bench.display.end();
	assert.ok(bench.take().endsWith(`------\n > bad:\n${"0.001 b\n".repeat(20)}------\n`));
});

test("tty: what does not fit is left out, running steps last", async () => {
	const bench = new Bench({ mode: "tty" }, [60, 10]);
	await bench.after(
		0,
		vertex("running", [0]),
		...Array.from({ length: 20 }, (_, i) => vertex(`done ${i}`, [i, i + 1])),
	);
	const names = lastFrame(bench.take())
		.slice(1, -1)
		.map((line) => line.slice(4, 12).trim());
	assert.deepEqual(names, ["running", ...[13, 14, 15, 16, 17, 18, 19].map((i) => `done ${i}`)]);
	bench.display.end();
	assert.equal(lastFrame(bench.take()).length, 23, "the last frame has all");
});

test("tty: wide characters keep the columns, narrow terminals drop rows", async () => {
	const bench = new Bench({ mode: "tty", env: { NO_COLOR: "1" } }, [40, 20]);
	await bench.after(0, vertex("世界".repeat(20), [0, 1000]));
	const text = bench.take();
	assert.equal(lastFrame(text)[1], ` => ${"世界".repeat(7)}   1.0s`);
	assert.ok(!text.includes("\x1b[34m"));
	const narrow = new Bench({ mode: "tty" }, [20, 20]);
	await narrow.after(0, vertex("a", [0]));
	assert.equal(lastFrame(narrow.take()).length, 2);
});

test("tty: ten thousand steps are drawn in time", async () => {
	const bench = new Bench({ mode: "tty" }, [120, 50]);
	await bench.after(0, ...Array.from({ length: 10_000 }, (_, i) => vertex(`step ${i}`, [0, i])));
	for (let i = 0; i < 10; i++) {
		await bench.after(100, vertex(`step ${i}`, [0, i + 1]));
	}
	assert.ok(bench.take().split("\x1b[?25h").length > 10);
});
