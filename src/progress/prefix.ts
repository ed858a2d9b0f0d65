import type { ProgressEvent, ProgressSink } from "./progress.ts";

/** Passes events on with the name of their target before the names of vertices: `[app internal] load …`. */
export function prefixProgress(sink: ProgressSink, prefix: string): ProgressSink {
	return { write: (event) => sink.write(prefixEvent(event, prefix)) };
}

function prefixEvent(event: ProgressEvent, prefix: string): ProgressEvent {
	if (event.kind !== "vertex") {
		return event;
	}
	const { vertex } = event;
	const { progressGroup: group } = vertex;
	return {
		kind: "vertex",
		vertex: {
			...vertex,
			name: addPrefix(vertex.name, prefix),
			...(group === undefined ? {} : { progressGroup: { ...group, name: addPrefix(group.name, prefix) } }),
		},
	};
}

function addPrefix(name: string, prefix: string): string {
	return name.startsWith("[") ? `[${prefix} ${name.slice(1)}` : `[${prefix}] ${name}`;
}
