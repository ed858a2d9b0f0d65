import { SlipwayError } from "../errors/errors.ts";
import type { ResolvedSource, ResolveSourceRequest, SourceIdentity } from "../frontend/frontend.ts";
import { formatPlatformAll } from "../oci/platform.ts";
import type { Session } from "../session/session.ts";
import type { Job, StepContext } from "../solver/solver.ts";
import type { SourceInstance } from "../source/source.ts";
import type { Output } from "../worker/worker.ts";
import type { ControllerServices } from "./control.ts";

const imageScheme = "docker-image://";
const layoutScheme = "oci-layout://";

/** What a source is now, shown as a step. Policies are the caller's business. */
export function resolveSource(
	{ source, ...request }: ResolveSourceRequest,
	{
		job,
		services,
		session,
		signal,
	}: {
		readonly job: Job<Output>;
		readonly services: Pick<ControllerServices, "resolver" | "worker">;
		readonly session: Session;
		readonly signal: AbortSignal;
	},
): Promise<ResolvedSource> {
	const { identifier } = source;
	const name = request.logName || `resolve image config for ${identifier}`;
	const platform = request.platform ?? services.worker.platforms[0];
	const id = `${name} ${identifier} ${platform === undefined ? "" : formatPlatformAll(platform)}`;
	return job.step({ id: request.logName || id, name, signal }, async (step) => {
		if (identifier.startsWith(imageScheme) || identifier.startsWith(layoutScheme)) {
			return await resolveImage({ source, ...request }, { services, session, step });
		}
		const { gitObject = false, httpChecksum } = request;
		const known = await openSource(source, { services, session }).describe?.({
			...step,
			gitObject,
			...(httpChecksum === undefined ? {} : { httpChecksum }),
		});
		return { source, ...known };
	});
}

async function resolveImage(
	{ source, platform, mode, noConfig }: ResolveSourceRequest,
	{
		services,
		session,
		step,
	}: {
		readonly services: Pick<ControllerServices, "resolver">;
		readonly session: Session;
		readonly step: StepContext;
	},
): Promise<ResolvedSource> {
	const { identifier, attrs } = source;
	const isLayout = identifier.startsWith(layoutScheme);
	const ref = identifier.slice((isLayout ? layoutScheme : imageScheme).length);
	const { digest, config } = await services.resolver.resolve(
		{
			ref,
			platform,
			mode,
			sessions: () => [session],
			...(isLayout
				? {
						store: {
							sessionId: attrs.get("oci.session") || undefined,
							storeId: attrs.get("oci.store") ?? "",
						},
					}
				: {}),
		},
		step,
	);
	return { source, image: { digest, config: noConfig ? undefined : config } };
}

export function openSource(
	{ identifier, attrs }: SourceIdentity,
	{ services, session }: { readonly services: Pick<ControllerServices, "worker">; readonly session: Session },
): SourceInstance {
	const [scheme = "", rest] = identifier.split("://", 2);
	const known = rest === undefined ? undefined : services.worker.sources.get(scheme);
	if (known === undefined) {
		const problem =
			rest === undefined ? `failed to parse ${identifier}: invalid` : `unknown scheme ${scheme}: not found`;
		throw new SlipwayError("invalid-argument", problem);
	}
	return known.open({
		identifier,
		attrs: Object.fromEntries(attrs),
		platform: undefined,
		sessions: () => [session],
	});
}
