import { serve } from "../api/grpc-server.ts";
import { control } from "../api/services/control.ts";
import { type ControlService, type ControlServiceOptions, withEncodedAnswers } from "./service.ts";
import { createBuilds } from "./service-builds.ts";
import { contentMethods } from "./service-content.ts";
import { listenHistory, updateHistory } from "./service-history.ts";
import { createSessionRegistry } from "./service-sessions.ts";
import { buildHere, solve } from "./service-solve.ts";
import { streamStatus } from "./service-status.ts";
import { diskUsage, prune } from "./service-usage.ts";
import { builderInfo, listWorkers } from "./service-workers.ts";

export function createControlService(options: ControlServiceOptions): ControlService {
	const { history, worker, version } = options;
	const builds = createBuilds();
	const sessions = createSessionRegistry(options.openSession);
	const services = { ...options, builds, sessions };
	return {
		methods: [
			serve(control.solve, (request, call) => solve(services, request, call)),
			serve(withEncodedAnswers(control.status), (request, stream, call) =>
				streamStatus(services, request, stream, call),
			),
			serve(control.session, (stream, call) => sessions.serve(stream, call)),
			serve(control.diskUsage, (request, call) => diskUsage(options, request, call)),
			serve(control.prune, (request, stream, call) => prune(options, request, stream, call)),
			serve(control.listWorkers, async (request) => listWorkers(worker, version, request)),
			serve(control.info, async () => builderInfo(version)),
			serve(control.listenBuildHistory, (request, stream, call) =>
				listenHistory(history, request, stream, call),
			),
			serve(control.updateBuildHistory, async (request) => {
				await updateHistory(history, request);
				return {};
			}),
			...contentMethods([history.blobs, options.content]),
		],
		build: (request, buildOptions) => buildHere(services, request, buildOptions),
		get running() {
			return builds.running;
		},
		onChange: (listener) => builds.onChange(listener),
		drain: () => history.drain(),
		cancelAll: (reason) => builds.cancelAll(reason),
		async [Symbol.asyncDispose]() {
			builds.cancelAll("the builder stops");
			await history[Symbol.asyncDispose]();
		},
	};
}
