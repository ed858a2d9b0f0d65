import { readFileSync } from "node:fs";
import { SlipwayError, toError, wrap } from "../errors/errors.ts";
import { ExportTraceServiceRequest } from "./generated/otlp/collector.ts";
import type { ResourceSpans } from "./generated/otlp/trace.ts";
import type { Attributes, SpanSink } from "./tracing.ts";

/** Where spans (or metrics) go, as OpenTelemetry's environment variables say it, https://opentelemetry.io/docs/specs/otel/protocol/exporter/ */
export interface OtlpSettings {
	/** Default: spans. */
	readonly signal?: "metrics";
	readonly protocol: "grpc" | "http/protobuf";
	readonly endpoint: URL;
	/** In place of a host, for `unix:` endpoints. */
	readonly socketPath?: string;
	readonly headers: Readonly<Record<string, string>>;
	readonly gzip: boolean;
	readonly timeoutMs: number;
	readonly tls: { readonly ca?: string; readonly cert?: string; readonly key?: string };
	/** How long a span waits for others, at most. */
	readonly batchMs: number;
}

type Environment = Readonly<Record<string, string | undefined>>;

const defaultTimeoutMs = 10_000;
const defaultBatchMs = 5000;

/** Undefined when nothing is configured. Throws `invalid-argument` for what makes no sense. */
export function readOtlpSettings(
	env: Environment,
	signal: "traces" | "metrics" = "traces",
): OtlpSettings | undefined {
	const own = `OTEL_EXPORTER_OTLP_${signal.toUpperCase()}_`;
	const get = (name: string): string | undefined =>
		env[`${own}${name}`] || env[`OTEL_EXPORTER_OTLP_${name}`] || undefined;
	const exporter = env[`OTEL_${signal.toUpperCase()}_EXPORTER`] || undefined;
	if (env["OTEL_SDK_DISABLED"]?.toLowerCase() === "true" || exporter === "none") {
		return undefined;
	}
	if (exporter !== undefined && exporter !== "otlp") {
		throw new SlipwayError("invalid-argument", `unsupported opentelemetry exporter ${exporter}`);
	}
	if (exporter === undefined && get("ENDPOINT") === undefined) {
		return undefined;
	}
	const protocol = get("PROTOCOL") ?? "grpc";
	if (protocol !== "grpc" && protocol !== "http/protobuf") {
		throw new SlipwayError("invalid-argument", `unsupported otlp protocol ${protocol}`);
	}
	const compression = get("COMPRESSION") ?? "none";
	if (compression !== "none" && compression !== "gzip") {
		throw new SlipwayError("invalid-argument", `unsupported otlp compression ${compression}`);
	}
	const files = { ca: get("CERTIFICATE"), cert: get("CLIENT_CERTIFICATE"), key: get("CLIENT_KEY") };
	const tls = Object.entries(files).flatMap(([name, path]) =>
		path === undefined ? [] : [[name, readText(path)]],
	);
	return {
		...(signal === "metrics" ? { signal } : {}),
		protocol,
		...endpointOf(env, protocol, signal),
		headers: headersOf(get("HEADERS") ?? ""),
		gzip: compression === "gzip",
		timeoutMs: milliseconds("OTEL_EXPORTER_OTLP_TIMEOUT", get("TIMEOUT"), defaultTimeoutMs),
		tls: Object.fromEntries(tls),
		batchMs: milliseconds("OTEL_BSP_SCHEDULE_DELAY", env["OTEL_BSP_SCHEDULE_DELAY"], defaultBatchMs),
	};
}

/** `service.name` and whatever `OTEL_RESOURCE_ATTRIBUTES` adds. */
export function readOtlpResource(env: Environment, defaults: Attributes): Attributes {
	const attributes = { ...defaults, ...pairsOf(env["OTEL_RESOURCE_ATTRIBUTES"] ?? "") };
	const name = env["OTEL_SERVICE_NAME"] || undefined;
	return name === undefined ? attributes : { ...attributes, "service.name": name };
}

/** Whether a trace that begins here is recorded, by `OTEL_TRACES_SAMPLER`; those of others follow their parent. */
export function readOtlpSampler(env: Environment): (traceId: string) => boolean {
	const name = (env["OTEL_TRACES_SAMPLER"] || "parentbased_always_on").replace(/^parentbased_/, "");
	const argument = env["OTEL_TRACES_SAMPLER_ARG"] || "1";
	switch (name) {
		case "always_on":
			return () => true;
		case "always_off":
			return () => false;
		case "traceidratio": {
			const ratio = Number(argument);
			if (!(ratio >= 0 && ratio <= 1)) {
				throw new SlipwayError(
					"invalid-argument",
					`OTEL_TRACES_SAMPLER_ARG is ${JSON.stringify(argument)}, which is no ratio`,
				);
			}
			// By the low 7 bytes, which are random in every version of the specification.
			return (traceId) => Number.parseInt(traceId.slice(-13), 16) < ratio * 2 ** 52;
		}
		default:
			throw new SlipwayError(
				"invalid-argument",
				`unsupported OTEL_TRACES_SAMPLER ${JSON.stringify(env["OTEL_TRACES_SAMPLER"])}`,
			);
	}
}

function endpointOf(
	env: Environment,
	protocol: OtlpSettings["protocol"],
	signal: "traces" | "metrics",
): Pick<OtlpSettings, "endpoint" | "socketPath"> {
	const name = signal.toUpperCase();
	const own = env[`OTEL_EXPORTER_OTLP_${name}_ENDPOINT`] || undefined;
	const shared = env["OTEL_EXPORTER_OTLP_ENDPOINT"] || undefined;
	const insecure = (
		env[`OTEL_EXPORTER_OTLP_${name}_INSECURE`] ||
		env["OTEL_EXPORTER_OTLP_INSECURE"] ||
		""
	).toLowerCase();
	const text = own ?? shared ?? (protocol === "grpc" ? "http://localhost:4317" : "http://localhost:4318");
	const unix = /^unix:(?:\/\/)?(\/.+)$/.exec(text);
	if (unix !== null) {
		return { endpoint: new URL(`http://localhost/v1/${signal}`), socketPath: unix[1] as string };
	}
	const hasScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(text);
	const url = URL.parse(hasScheme ? text : `${insecure === "true" ? "http" : "https"}://${text}`);
	if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) {
		throw new SlipwayError("invalid-argument", `invalid OTLP endpoint ${JSON.stringify(text)}`);
	}
	if (protocol === "http/protobuf" && own === undefined) {
		url.pathname = `${url.pathname.replace(/\/$/, "")}/v1/${signal}`;
	}
	return { endpoint: url };
}

function headersOf(text: string): Readonly<Record<string, string>> {
	return Object.fromEntries(
		Object.entries(pairsOf(text)).map(([name, value]) => [name.toLowerCase(), value]),
	);
}

/** `a=1,b=2`, both parts percent-encoded. */
function pairsOf(text: string): Record<string, string> {
	const pairs: Record<string, string> = {};
	for (const part of text.split(",")) {
		const at = part.indexOf("=");
		if (at > 0) {
			pairs[decode(part.slice(0, at).trim())] = decode(part.slice(at + 1).trim());
		}
	}
	return pairs;
}

function decode(text: string): string {
	try {
		return decodeURIComponent(text);
	} catch {
		return text;
	}
}

function milliseconds(name: string, text: string | undefined, fallback: number): number {
	if (text === undefined || text === "") {
		return fallback;
	}
	const value = Number(text);
	if (!(value >= 0)) {
		throw new SlipwayError(
			"invalid-argument",
			`${name} is ${JSON.stringify(text)}, which is no number of milliseconds`,
		);
	}
	return value;
}

function readText(path: string): string {
	try {
		return readFileSync(path, "utf8");
	} catch (error) {
		throw wrap(error, `reading the OTLP certificate ${path}`);
	}
}

/** One message to the collector. Errors that another attempt may not have are `unavailable`. */
export interface OtlpTransport extends AsyncDisposable {
	send(message: Uint8Array): Promise<void>;
}

export interface SpanExporterOptions {
	readonly settings: OtlpSettings;
	/** Told when spans are lost. */
	readonly warn: (message: string) => void;
	/** Default: what the settings say. */
	readonly transport?: OtlpTransport;
	/** Between attempts; default one second, and twice as long each time. */
	readonly retryMs?: number;
}

/** Sends spans in batches. Disposing it sends what waits, once. */
export interface SpanExporter extends SpanSink, AsyncDisposable {
	/** Resolves when all that was written has been sent or given up. */
	flush(): Promise<void>;
}

const maxBatchSpans = 512;
/** What waits when the collector is slow; later spans are lost. */
const maxWaitingSpans = 8192;
const maxAttempts = 4;

export function createSpanExporter(options: SpanExporterOptions): SpanExporter {
	return new Exporter(options);
}

class Exporter implements SpanExporter {
	readonly #options: SpanExporterOptions;
	#transport: Promise<OtlpTransport> | undefined;
	#waiting: ResourceSpans[] = [];
	#waitingSpans = 0;
	#lost = 0;
	#timer: NodeJS.Timeout | undefined;
	#sending: Promise<void> | undefined;
	#disposed = false;
	readonly #hurry = new AbortController();

	constructor(options: SpanExporterOptions) {
		this.#options = options;
		this.#transport = options.transport === undefined ? undefined : Promise.resolve(options.transport);
	}

	write(spans: ResourceSpans): void {
		const count = spans.scopeSpans.reduce((sum, { spans: inScope }) => sum + inScope.length, 0);
		if (this.#disposed || count === 0) {
			return;
		}
		if (this.#waitingSpans + count > maxWaitingSpans) {
			this.#lost += count;
			return;
		}
		this.#waiting.push(spans);
		this.#waitingSpans += count;
		if (this.#waitingSpans >= maxBatchSpans) {
			if (this.#sending === undefined) {
				void this.flush();
			}
		} else {
			this.#timer ??= setTimeout(() => void this.flush(), this.#options.settings.batchMs).unref();
		}
	}

	async flush(): Promise<void> {
		clearTimeout(this.#timer);
		this.#timer = undefined;
		while (this.#sending !== undefined || this.#waiting.length > 0) {
			this.#sending ??= this.#sendBatch().finally(() => {
				this.#sending = undefined;
			});
			await this.#sending;
		}
	}

	async [Symbol.asyncDispose](): Promise<void> {
		this.#disposed = true;
		this.#hurry.abort();
		await this.flush();
		await (await this.#transport)?.[Symbol.asyncDispose]();
	}

	async #sendBatch(): Promise<void> {
		const batch: ResourceSpans[] = [];
		let count = 0;
		for (let next = this.#waiting[0]; next !== undefined && count < maxBatchSpans; next = this.#waiting[0]) {
			batch.push(next);
			this.#waiting.shift();
			count += next.scopeSpans.reduce((sum, { spans }) => sum + spans.length, 0);
		}
		this.#waitingSpans -= count;
		try {
			await this.#send(ExportTraceServiceRequest.encode({ resourceSpans: joined(batch) }).finish());
		} catch (error) {
			this.#lost += count;
			this.#options.warn(`${this.#lost} spans of traces are lost: ${toError(error).message}`);
			this.#lost = 0;
		}
	}

	async #send(message: Uint8Array): Promise<void> {
		let waitMs = this.#options.retryMs ?? 1000;
		for (let attempt = 1; ; attempt++) {
			try {
				this.#transport ??= openTransport(this.#options.settings);
				await (await this.#transport).send(message);
				return;
			} catch (thrown) {
				const error = toError(thrown);
				const again = error.code === "unavailable" || error.code === "deadline-exceeded";
				if (!again || attempt === maxAttempts || this.#hurry.signal.aborted) {
					throw error;
				}
				await new Promise<void>((resolve) => {
					const timer = setTimeout(resolve, waitMs).unref();
					this.#hurry.signal.addEventListener("abort", () => {
						clearTimeout(timer);
						resolve();
					});
				});
				waitMs *= 2;
			}
		}
	}
}

/** Spans of the same resource and scope objects under one. */
function joined(batch: readonly ResourceSpans[]): readonly ResourceSpans[] {
	const byResource = new Map<unknown, ResourceSpans[]>();
	for (const spans of batch) {
		const others = byResource.get(spans.resource) ?? [];
		others.push(spans);
		byResource.set(spans.resource, others);
	}
	return [...byResource.values()].flatMap((group) => {
		const [first] = group;
		return first === undefined ? [] : [{ ...first, scopeSpans: joinedScopes(group) }];
	});
}

function joinedScopes(group: readonly ResourceSpans[]): ResourceSpans["scopeSpans"] {
	const byScope = new Map<unknown, ResourceSpans["scopeSpans"][number][]>();
	for (const scopeSpans of group.flatMap((spans) => spans.scopeSpans)) {
		const others = byScope.get(scopeSpans.scope) ?? [];
		others.push(scopeSpans);
		byScope.set(scopeSpans.scope, others);
	}
	return [...byScope.values()].flatMap((scopes) => {
		const [first] = scopes;
		return first === undefined ? [] : [{ ...first, spans: scopes.flatMap(({ spans }) => spans) }];
	});
}

export async function openTransport(settings: OtlpSettings): Promise<OtlpTransport> {
	// Loaded only where spans are sent.
	return settings.protocol === "grpc"
		? (await import("./otlp-grpc.ts")).openGrpcTransport(settings)
		: (await import("./otlp-http.ts")).openHttpTransport(settings);
}
