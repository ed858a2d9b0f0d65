import type * as pb from "../../api/generated/gateway.ts";
import type { Definition as DefinitionMessage } from "../../api/generated/ops.ts";
import { SlipwayError } from "../../errors/errors.ts";
import { toDefinitionMessage } from "../../llb/definition-message.ts";
import { newIdentity } from "../../oci/identity.ts";
import type { FailedStep, FrontendRef, FrontendResult } from "../frontend.ts";
import { attestationMessage, fromAttestationMessage } from "./gateway-messages.ts";

/** The trees that a client of the gateway knows, by the ids that it was given. */
export class GatewayRefs {
	readonly #byId = new Map<string, FrontendRef>();
	/** What steps that failed left, which only containers can be made of. */
	readonly #failed = new Map<string, FrontendRef>();
	readonly #failedIds = new WeakMap<FrontendRef, string>();

	/** Throws BuildKit's words for an id that nobody was given. */
	get(id: string): FrontendRef {
		const ref = this.#byId.get(id);
		if (ref === undefined) {
			const all = [...this.#byId.keys()].join(" ");
			throw new SlipwayError("unknown", `no such ref: ${id}, all [${all}]`);
		}
		return ref;
	}

	/** Undefined for no id, the empty tree. */
	returned(id: string): FrontendRef | undefined {
		if (id === "") {
			return undefined;
		}
		const ref = this.#byId.get(id);
		if (ref === undefined) {
			throw new SlipwayError("unknown", `return reference ${id} not found`);
		}
		return ref;
	}

	/** For a mount of a container. */
	mountable(id: string): FrontendRef | undefined {
		return this.#failed.get(id) ?? this.returned(id);
	}

	/** Ids for what is left of a failed step; the same for the same tree. */
	failedIds(refs: FailedStep["inputs"]): readonly string[] {
		return refs.map((ref) => {
			if (ref === undefined) {
				return "";
			}
			const id = this.#failedIds.get(ref) ?? newIdentity();
			this.#failedIds.set(ref, id);
			this.#failed.set(id, ref);
			return id;
		});
	}

	resultMessage(result: FrontendResult, { arrayRef }: { readonly arrayRef: boolean }): pb.Result {
		return {
			result: this.#treesMessage(result, arrayRef),
			metadata: new Map(Object.entries(result.metadata)),
			attestations: new Map(
				[...result.attestations].map(([key, list]) => [
					key,
					{
						attestation: list.map((each) => attestationMessage(each, each.ref && this.#refMessage(each.ref))),
					},
				]),
			),
		};
	}

	#treesMessage({ ref, refs }: FrontendResult, arrayRef: boolean): pb.Result["result"] {
		if (refs.size === 0) {
			const value = this.#refMessage(ref);
			return arrayRef ? { $case: "ref", value } : { $case: "refDeprecated", value: value.id };
		}
		const entries = [...refs].map(([key, each]) => [key, this.#refMessage(each)] as const);
		return arrayRef
			? { $case: "refs", value: { refs: new Map(entries) } }
			: { $case: "refsDeprecated", value: { refs: new Map(entries.map(([key, { id }]) => [key, id])) } };
	}

	#refMessage(ref: FrontendRef | undefined): pb.Ref {
		if (ref === undefined) {
			return { id: "", def: undefined };
		}
		const id = newIdentity();
		this.#byId.set(id, ref);
		return { id, def: messageOf(ref) };
	}

	resultOf(message: pb.Result): FrontendResult {
		const { result } = message;
		const ids = ((): ReadonlyMap<string, string> => {
			switch (result?.$case) {
				case "refsDeprecated":
					return result.value.refs;
				case "refs":
					return new Map([...result.value.refs].map(([key, { id }]) => [key, id]));
				default:
					return new Map();
			}
		})();
		const single =
			result?.$case === "ref" ? result.value.id : result?.$case === "refDeprecated" ? result.value : "";
		return {
			ref: this.returned(single),
			refs: new Map([...ids].map(([key, id]) => [key, this.returned(id)])),
			metadata: Object.fromEntries(message.metadata),
			attestations: new Map(
				[...message.attestations].map(([key, { attestation }]) => [
					key,
					attestation.map((each) => fromAttestationMessage(each, this.returned(each.ref?.id ?? ""))),
				]),
			),
		};
	}
}

/** Definitions are large and the same ref is answered often. */
const messages = new WeakMap<FrontendRef, DefinitionMessage>();

function messageOf(ref: FrontendRef): DefinitionMessage {
	const message = messages.get(ref) ?? toDefinitionMessage(ref.definition);
	messages.set(ref, message);
	return message;
}
