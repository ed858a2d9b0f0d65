import { createPrivateKey, createPublicKey, type JsonWebKey, type KeyObject, sign } from "node:crypto";
import { SlipwayError, wrap } from "../errors/errors.ts";
import { readStart } from "./read-start.ts";

/**
 * An ssh agent in this process for private keys from files: it lists them and signs with them, as draft-ietf-sshm-ssh-agent has it,
 * and answers everything else with a failure. The formats are OpenSSH's own (PROTOCOL.key) and PEM; keys that need a passphrase are
 * refused.
 */
export interface AgentKey {
	/** The public key as ssh has it on the wire, RFC 4253 section 6.6. */
	readonly publicBlob: Uint8Array;
	readonly comment: string;
	/** A signature as ssh has it on the wire. */
	sign(data: Uint8Array, flags: number): Uint8Array;
}

/** BuildKit's limit. */
const maxFileBytes = 100 * 1024;

/** Throws `failed-precondition` for one with a passphrase, `invalid-argument` for what is no private key. */
export function readAgentKey(path: string): AgentKey {
	const text = readFile(path);
	try {
		return agentKeyOf(parsePrivateKey(text), path);
	} catch (error) {
		if (error instanceof SlipwayError && error.code === "failed-precondition") {
			throw new SlipwayError(
				"failed-precondition",
				`failed to parse ${path}: this private key is passphrase protected: add it to an agent with ssh-add, and lend that with --ssh default`,
				{ cause: error },
			);
		}
		throw new SlipwayError("invalid-argument", `failed to parse ${path}: ${message(error)}`, {
			cause: error,
		});
	}
}

function message(error: unknown): string {
	return error instanceof SlipwayError ? error.message : "not a private key";
}

function readFile(path: string): string {
	try {
		return readStart(path, maxFileBytes).toString("latin1");
	} catch (error) {
		throw wrap(error, `failed to read ${path}`);
	}
}

function passphraseNeeded(): SlipwayError {
	return new SlipwayError("failed-precondition", "this private key is passphrase protected");
}

function parsePrivateKey(text: string): KeyObject {
	const match = /-----BEGIN ([A-Z0-9 ]+)-----\r?\n([\s\S]*?)-----END \1-----/.exec(text);
	if (match === null) {
		throw new SlipwayError("invalid-argument", "ssh: no key found");
	}
	const [block, label = "", body = ""] = match;
	if (label === "OPENSSH PRIVATE KEY") {
		return parseOpenSsh(Buffer.from(body, "base64"));
	}
	if (label === "ENCRYPTED PRIVATE KEY" || /^Proc-Type:.*ENCRYPTED/m.test(body)) {
		throw passphraseNeeded();
	}
	return createPrivateKey(block);
}

const magic = "openssh-key-v1\0";

function parseOpenSsh(bytes: Buffer): KeyObject {
	if (bytes.subarray(0, magic.length).toString("latin1") !== magic) {
		throw new SlipwayError("invalid-argument", "ssh: invalid openssh private key format");
	}
	const outer = new Reader(bytes.subarray(magic.length));
	const cipher = outer.text();
	outer.string();
	outer.string();
	if (cipher !== "none") {
		throw passphraseNeeded();
	}
	if (outer.uint32() !== 1) {
		throw new SlipwayError("invalid-argument", "ssh: more than one key in the file");
	}
	outer.string();
	const inner = new Reader(outer.string());
	const [check, again] = [inner.uint32(), inner.uint32()];
	if (check !== again) {
		throw new SlipwayError("invalid-argument", "ssh: malformed OpenSSH key");
	}
	return createPrivateKey({ key: jwkOf(inner), format: "jwk" });
}

/** The fields of a private key in OpenSSH's order. */
function jwkOf(fields: Reader): JsonWebKey {
	const type = fields.text();
	switch (type) {
		case "ssh-ed25519": {
			const x = fields.string();
			// The seed, and the public key once more.
			const d = fields.string().subarray(0, 32);
			return { kty: "OKP", crv: "Ed25519", x: url(x), d: url(d) };
		}
		case "ssh-rsa": {
			const [n, e, d, qi, p, q] = [1, 2, 3, 4, 5, 6].map(() => unsigned(fields.string()));
			if (n === undefined || e === undefined || d === undefined || qi === undefined) {
				break;
			}
			if (p === undefined || q === undefined) {
				break;
			}
			const exponent = (prime: Uint8Array): string => numberUrl(toNumber(d) % (toNumber(prime) - 1n));
			const [dp, dq] = [exponent(p), exponent(q)];
			return { kty: "RSA", n: url(n), e: url(e), d: url(d), p: url(p), q: url(q), dp, dq, qi: url(qi) };
		}
		case "ecdsa-sha2-nistp256":
		case "ecdsa-sha2-nistp384":
		case "ecdsa-sha2-nistp521": {
			const curve = curves.find((each) => type === `ecdsa-sha2-${each.ssh}`);
			fields.string();
			const point = fields.string();
			const d = unsigned(fields.string());
			if (curve === undefined || point.length !== 1 + 2 * curve.bytes) {
				break;
			}
			const x = point.subarray(1, 1 + curve.bytes);
			const y = point.subarray(1 + curve.bytes);
			return { kty: "EC", crv: curve.jwk, x: url(x), y: url(y), d: url(padded(d, curve.bytes)) };
		}
	}
	throw new SlipwayError("invalid-argument", `ssh: unsupported key type ${JSON.stringify(type)}`);
}

const curves = [
	{ ssh: "nistp256", jwk: "P-256", bytes: 32, hash: "sha256" },
	{ ssh: "nistp384", jwk: "P-384", bytes: 48, hash: "sha384" },
	{ ssh: "nistp521", jwk: "P-521", bytes: 66, hash: "sha512" },
] as const;

function agentKeyOf(key: KeyObject, comment: string): AgentKey {
	const jwk = createPublicKey(key).export({ format: "jwk" });
	const part = (value: string | undefined): Buffer => Buffer.from(value ?? "", "base64url");
	switch (key.asymmetricKeyType) {
		case "ed25519":
			return {
				publicBlob: join(ascii("ssh-ed25519"), string(part(jwk.x))),
				comment,
				sign: (data) => join(ascii("ssh-ed25519"), string(sign(null, data, key))),
			};
		case "rsa":
			return {
				publicBlob: join(ascii("ssh-rsa"), mpint(part(jwk.e)), mpint(part(jwk.n))),
				comment,
				sign(data, flags) {
					const [name, hash] = rsaAlgorithm(flags);
					return join(ascii(name), string(sign(hash, data, key)));
				},
			};
		case "ec": {
			const curve = curves.find((each) => each.jwk === jwk.crv);
			if (curve !== undefined) {
				const name = `ecdsa-sha2-${curve.ssh}`;
				const point = Buffer.concat([Uint8Array.of(4), part(jwk.x), part(jwk.y)]);
				return {
					publicBlob: join(ascii(name), ascii(curve.ssh), string(point)),
					comment,
					sign(data) {
						const both = sign(curve.hash, data, { key, dsaEncoding: "ieee-p1363" });
						const numbers = join(mpint(both.subarray(0, curve.bytes)), mpint(both.subarray(curve.bytes)));
						return join(ascii(name), string(numbers));
					},
				};
			}
		}
	}
	throw new SlipwayError(
		"invalid-argument",
		`ssh: unsupported key type ${JSON.stringify(key.asymmetricKeyType)}`,
	);
}

/** Flags of a request to sign: 2 and 4 ask for the newer hashes, RFC 8332. */
function rsaAlgorithm(flags: number): readonly [string, string] {
	if ((flags & 4) !== 0) {
		return ["rsa-sha2-512", "sha512"];
	}
	return (flags & 2) !== 0 ? ["rsa-sha2-256", "sha256"] : ["ssh-rsa", "sha1"];
}

const requestIdentities = 11;
const identitiesAnswer = 12;
const signRequest = 13;
const signResponse = 14;

/** What an agent that has nobody else's right answers to what it does not do. */
export const agentFailure: Uint8Array = Uint8Array.of(0, 0, 0, 1, 5);

/** The answer to a whole message, both with their length in front. */
export function answerAgentRequest(keys: readonly AgentKey[], request: Uint8Array): Uint8Array {
	const fields = new Reader(request.subarray(5));
	try {
		switch (request[4]) {
			case requestIdentities:
				return reply(
					identitiesAnswer,
					uint32(keys.length),
					...keys.flatMap((key) => [string(key.publicBlob), ascii(key.comment)]),
				);
			case signRequest: {
				const blob = Buffer.from(fields.string());
				const data = fields.string();
				const flags = fields.uint32();
				const key = keys.find((each) => blob.equals(each.publicBlob));
				return key === undefined ? agentFailure : reply(signResponse, string(key.sign(data, flags)));
			}
			default:
				return agentFailure;
		}
	} catch {
		return agentFailure;
	}
}

function reply(type: number, ...parts: readonly Uint8Array[]): Uint8Array {
	return string(Buffer.concat([Uint8Array.of(type), ...parts]));
}

/** Fields of ssh's wire format, RFC 4251 section 5. Throws when there are none left. */
class Reader {
	readonly #bytes: Buffer;
	#at = 0;

	constructor(bytes: Uint8Array) {
		this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
	}

	uint32(): number {
		const value = this.#bytes.readUInt32BE(this.#at);
		this.#at += 4;
		return value;
	}

	string(): Uint8Array {
		const length = this.uint32();
		if (this.#at + length > this.#bytes.length) {
			throw new SlipwayError("invalid-argument", "ssh: unexpected end of data");
		}
		this.#at += length;
		return this.#bytes.subarray(this.#at - length, this.#at);
	}

	text(): string {
		return Buffer.from(this.string()).toString("latin1");
	}
}

function join(...parts: readonly Uint8Array[]): Uint8Array {
	return Buffer.concat(parts);
}

function uint32(value: number): Uint8Array {
	const bytes = Buffer.alloc(4);
	bytes.writeUInt32BE(value);
	return bytes;
}

function string(bytes: Uint8Array): Uint8Array {
	return join(uint32(bytes.length), bytes);
}

function ascii(text: string): Uint8Array {
	return string(Buffer.from(text));
}

/** A positive number: no leading zeros but one where the first bit would be taken for a sign. */
function mpint(bytes: Uint8Array): Uint8Array {
	const short = unsigned(bytes);
	return string((short[0] ?? 0) >= 0x80 ? join(Uint8Array.of(0), short) : short);
}

function unsigned(bytes: Uint8Array): Uint8Array {
	let start = 0;
	while (start < bytes.length && bytes[start] === 0) {
		start++;
	}
	return bytes.subarray(start);
}

function padded(bytes: Uint8Array, length: number): Uint8Array {
	return join(new Uint8Array(Math.max(0, length - bytes.length)), bytes);
}

function url(bytes: Uint8Array): string {
	return Buffer.from(bytes).toString("base64url");
}

function toNumber(bytes: Uint8Array): bigint {
	return BigInt(`0x${Buffer.from(bytes).toString("hex") || "0"}`);
}

function numberUrl(value: bigint): string {
	const hex = value.toString(16);
	return Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, "hex").toString("base64url");
}
