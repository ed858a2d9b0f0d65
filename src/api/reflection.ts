import { promisify } from "node:util";
import { inflateRaw } from "node:zlib";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { SlipwayError } from "../errors/errors.ts";
import type { ServerReflectionRequest, ServerReflectionResponse } from "./generated/reflection.ts";
import type { MessageStream, ServedMethod } from "./grpc.ts";
import { serve } from "./grpc-server.ts";
import { reflection, reflectionAlpha } from "./services/reflection.ts";
import { codeNumber } from "./status.ts";

/** Server reflection, for tools such as grpcurl: tells of the services of `methods` and of itself, and of their messages. */
export function reflectionMethods(methods: readonly ServedMethod[]): readonly ServedMethod[] {
	const paths = [
		...methods.map(({ method }) => method.path),
		reflection.serverReflectionInfo.path,
		reflectionAlpha.serverReflectionInfo.path,
	];
	const services = [...new Set(paths.map((path) => path.slice(1, path.lastIndexOf("/"))))].sort();
	const handler = (stream: MessageStream<ServerReflectionRequest, ServerReflectionResponse>) =>
		answer(stream, services);
	return [
		serve(reflection.serverReflectionInfo, handler),
		serve(reflectionAlpha.serverReflectionInfo, handler),
	];
}

async function answer(
	stream: MessageStream<ServerReflectionRequest, ServerReflectionResponse>,
	services: readonly string[],
): Promise<void> {
	const sent = new Set<string>();
	for await (const request of stream) {
		const messageResponse = await answerOne(request, services, sent);
		await stream.send({
			validHost: request.host,
			originalRequest: request,
			messageResponse,
		});
	}
}

type Answer = NonNullable<ServerReflectionResponse["messageResponse"]>;

async function answerOne(
	{ messageRequest }: ServerReflectionRequest,
	services: readonly string[],
	sent: Set<string>,
): Promise<Answer> {
	switch (messageRequest?.$case) {
		case "listServices":
			return {
				$case: "listServicesResponse",
				value: { service: services.map((name) => ({ name })) },
			};
		case "fileByFilename": {
			const { files } = await loadCatalog();
			return withDependencies(files.get(messageRequest.value), files, sent);
		}
		case "fileContainingSymbol": {
			const { files, symbols } = await loadCatalog();
			return withDependencies(symbols.get(messageRequest.value), files, sent);
		}
		case "allExtensionNumbersOfType": {
			// None of these messages has extensions.
			const { symbols } = await loadCatalog();
			return symbols.has(messageRequest.value)
				? {
						$case: "allExtensionNumbersResponse",
						value: { baseTypeName: messageRequest.value, extensionNumber: [] },
					}
				: notFound();
		}
		case "fileContainingExtension":
			return notFound();
		case undefined:
			throw new SlipwayError("invalid-argument", "invalid MessageRequest: <nil>");
	}
}

function notFound(): Answer {
	return { $case: "errorResponse", value: { errorCode: codeNumber("not-found"), errorMessage: "not found" } };
}

/** The file, and what it imports as far as this stream has not had it. */
function withDependencies(
	file: FileDescriptor | undefined,
	files: ReadonlyMap<string, FileDescriptor>,
	sent: Set<string>,
): Answer {
	if (file === undefined) {
		return notFound();
	}
	const bytes = [file.bytes];
	sent.add(file.name);
	const queue = [...file.dependencies];
	for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
		const dependency = files.get(name);
		if (dependency !== undefined && !sent.has(name)) {
			sent.add(name);
			bytes.push(dependency.bytes);
			queue.push(...dependency.dependencies);
		}
	}
	return { $case: "fileDescriptorResponse", value: { fileDescriptorProto: bytes } };
}

interface FileDescriptor {
	readonly name: string;
	readonly dependencies: readonly string[];
	/** Full names of messages, enums, services and what they hold. */
	readonly symbols: readonly string[];
	readonly bytes: Uint8Array;
}

interface Catalog {
	readonly files: ReadonlyMap<string, FileDescriptor>;
	readonly symbols: ReadonlyMap<string, FileDescriptor>;
}

let catalog: Promise<Catalog> | undefined;

function loadCatalog(): Promise<Catalog> {
	catalog ??= readCatalog();
	return catalog;
}

async function readCatalog(): Promise<Catalog> {
	const { descriptors } = await import("./generated/descriptors.ts");
	const set = await promisify(inflateRaw)(Buffer.from(descriptors, "base64"));
	const files = new Map<string, FileDescriptor>();
	const symbols = new Map<string, FileDescriptor>();
	for (const { number, bytes } of fieldsOf(set)) {
		if (number === 1) {
			const file = readFile(bytes);
			files.set(file.name, file);
			for (const symbol of file.symbols) {
				symbols.set(symbol, file);
			}
		}
	}
	return { files, symbols };
}

/** Numbers of fields in google/protobuf/descriptor.proto. */
const inFile = { name: 1, package: 2, dependency: 3, message: 4, enum: 5, service: 6 };
const inMessage = { field: 2, message: 3, enum: 4, oneof: 8 };
const enumValue = 2;
const serviceMethod = 2;

function readFile(bytes: Uint8Array): FileDescriptor {
	let name = "";
	let scope = "";
	const dependencies: string[] = [];
	const symbols: string[] = [];
	const fields = fieldsOf(bytes);
	for (const field of fields) {
		if (field.number === inFile.name) {
			name = textOf(field.bytes);
		} else if (field.number === inFile.package) {
			scope = textOf(field.bytes);
		} else if (field.number === inFile.dependency) {
			dependencies.push(textOf(field.bytes));
		}
	}
	for (const field of fields) {
		if (field.number === inFile.message) {
			addMessage(field.bytes, scope, symbols);
		} else if (field.number === inFile.enum) {
			addEnum(field.bytes, scope, symbols);
		} else if (field.number === inFile.service) {
			const service = addName(field.bytes, scope, symbols);
			addMembers(field.bytes, serviceMethod, service, symbols);
		}
	}
	return { name, dependencies, symbols, bytes };
}

function addMessage(bytes: Uint8Array, scope: string, symbols: string[]): void {
	const message = addName(bytes, scope, symbols);
	addMembers(bytes, inMessage.field, message, symbols);
	addMembers(bytes, inMessage.oneof, message, symbols);
	for (const field of fieldsOf(bytes)) {
		if (field.number === inMessage.message) {
			addMessage(field.bytes, message, symbols);
		} else if (field.number === inMessage.enum) {
			addEnum(field.bytes, message, symbols);
		}
	}
}

/** The values of an enum are names beside it, not in it. */
function addEnum(bytes: Uint8Array, scope: string, symbols: string[]): void {
	addName(bytes, scope, symbols);
	addMembers(bytes, enumValue, scope, symbols);
}

function addMembers(bytes: Uint8Array, number: number, scope: string, symbols: string[]): void {
	for (const field of fieldsOf(bytes)) {
		if (field.number === number) {
			addName(field.bytes, scope, symbols);
		}
	}
}

/** Every descriptor has its name as field 1. */
function addName(bytes: Uint8Array, scope: string, symbols: string[]): string {
	const name = textOf(fieldsOf(bytes).find(({ number }) => number === 1)?.bytes ?? new Uint8Array(0));
	const symbol = scope === "" ? name : `${scope}.${name}`;
	symbols.push(symbol);
	return symbol;
}

interface BytesField {
	readonly number: number;
	readonly bytes: Uint8Array;
}

/** The fields of a message that are text, bytes or messages. */
function fieldsOf(bytes: Uint8Array): readonly BytesField[] {
	const reader = new BinaryReader(bytes);
	const fields: BytesField[] = [];
	while (reader.pos < reader.len) {
		const [number, wireType] = reader.tag();
		if (wireType === 2) {
			fields.push({ number, bytes: reader.bytes() });
		} else {
			reader.skip(wireType, number);
		}
	}
	return fields;
}

function textOf(bytes: Uint8Array): string {
	return Buffer.from(bytes).toString();
}
