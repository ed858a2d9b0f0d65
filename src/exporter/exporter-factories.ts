import { createArchiveExporter } from "./archive-exporter.ts";
import type { ExporterFactory, ExporterServices } from "./exporter.ts";
import { createImageExporter } from "./image-exporter.ts";
import { createLocalExporter } from "./local-exporter.ts";
import { createTarExporter } from "./tar-exporter.ts";

/** Every exporter by the type that clients ask for. */
export function exporterFactories(services: ExporterServices): ReadonlyMap<string, ExporterFactory> {
	return new Map([
		["image", createImageExporter(services)],
		["oci", createArchiveExporter("oci", services)],
		["docker", createArchiveExporter("docker", services)],
		["local", createLocalExporter(services)],
		["tar", createTarExporter(services)],
	]);
}
