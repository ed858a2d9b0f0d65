import assert from "node:assert/strict";
import { test } from "node:test";
import { hasCode } from "../errors/errors.ts";
import { parallel, Scope } from "./scope.ts";
import { SharedQuestion } from "./shared-question.ts";

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function pending(scope: Scope): Promise<never> {
	return new Promise((_, reject) => scope.onAbort(() => reject(scope.error())));
}

test("SharedQuestion: all who ask share one attempt, and the value is kept", async () => {
	let attempts = 0;
	const question = new SharedQuestion(async () => ++attempts);
	const scope = new Scope();
	assert.deepEqual(await Promise.all([question.ask(scope), question.ask(scope)]), [1, 1]);
	assert.equal(await question.ask(scope), 1);
	question.forget();
	assert.equal(await question.ask(scope), 2);
});

test("SharedQuestion: an error is kept until it is forgotten", async () => {
	let attempts = 0;
	const question = new SharedQuestion(async () => {
		throw new Error(`attempt ${++attempts}`);
	});
	const scope = new Scope();
	await assert.rejects(question.ask(scope), /attempt 1/);
	await assert.rejects(question.ask(scope), /attempt 1/);
	question.forgetError();
	await assert.rejects(question.ask(scope), /attempt 2/);
});

test("SharedQuestion: the last to leave aborts, one turn later, unless somebody takes over", async () => {
	let aborted = 0;
	const question = new SharedQuestion((scope) => {
		scope.onAbort(() => aborted++);
		return pending(scope);
	});
	const [one, two] = [new Scope(), new Scope()];
	const first = question.ask(one);
	await turn();
	one.abort(new Error("left"));
	const second = question.ask(two);
	await assert.rejects(first, (error) => hasCode(error, "canceled"));
	await turn();
	assert.equal(aborted, 0);
	two.abort(new Error("left"));
	await assert.rejects(second);
	await turn();
	assert.equal(aborted, 1);
});

test("SharedQuestion: a value that comes after the abort is discarded", async () => {
	const discarded: number[] = [];
	const late = Promise.withResolvers<number>();
	const question = new SharedQuestion(() => late.promise, {
		discard: async (value) => void discarded.push(value),
	});
	const scope = new Scope();
	const asked = question.ask(scope);
	scope.abort(new Error("left"));
	await assert.rejects(asked);
	await turn();
	late.resolve(7);
	await turn();
	assert.deepEqual(discarded, [7]);
	assert.equal(question.value, undefined);
});

test("SharedQuestion: disposing aborts, rejects who waits and waits for the end", async () => {
	let ended = false;
	const question = new SharedQuestion((scope) =>
		pending(scope).finally(() => {
			ended = true;
		}),
	);
	const asked = assert.rejects(question.ask(new Scope()), (error) => hasCode(error, "canceled"));
	await question[Symbol.asyncDispose]();
	await asked;
	assert.equal(ended, true);
	await assert.rejects(question.ask(new Scope()));
});

test("SharedQuestion: aborting a chain of 10,000 questions needs no stack", async () => {
	let aborted = false;
	let last = new SharedQuestion<number>((scope) => {
		scope.onAbort(() => {
			aborted = true;
		});
		return pending(scope);
	});
	for (let i = 0; i < 10_000; i++) {
		const below = last;
		last = new SharedQuestion((scope) => below.ask(scope));
	}
	const scope = new Scope();
	const asked = assert.rejects(last.ask(scope));
	await turn();
	scope.abort(new Error("left"));
	await asked;
	while (!aborted) {
		await turn();
	}
});

test("parallel: ends with the first error or the first that is enough, and lets the others go", async () => {
	const scope = new Scope();
	let aborted = 0;
	const waits = (inner: Scope): Promise<never> => {
		inner.onAbort(() => aborted++);
		return pending(inner);
	};
	assert.equal(await parallel(scope, [waits, async () => true]), true);
	await assert.rejects(
		parallel(scope, [
			waits,
			async () => {
				throw new Error("no");
			},
		]),
		/no/,
	);
	assert.equal(aborted, 2);
	assert.equal(await parallel(scope, [async () => false, async () => {}]), false);
	assert.equal(await parallel(scope, []), false);
});

test("Scope: follows its signal and its parent, and makes a signal on demand", () => {
	const controller = new AbortController();
	using parent = Scope.of(controller.signal);
	const child = new Scope(parent);
	const { signal } = child;
	controller.abort(new Error("enough"));
	assert.equal(child.aborted, true);
	assert.equal(signal.aborted, true);
	assert.equal(signal.reason, controller.signal.reason);
	assert.equal(new Scope(parent).signal.aborted, true);
});
