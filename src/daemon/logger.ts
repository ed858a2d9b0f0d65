import { type LogConfig, type LogLevel, logLevels } from "./config.ts";

/** What a daemon says of itself, line by line, in the form of BuildKit's (logrus): for people, or JSON for machines. */
export interface Logger {
	log(level: LogLevel, message: string, fields?: Readonly<Record<string, unknown>>): void;
	isEnabled(level: LogLevel): boolean;
}

export function createLogger(
	{ format, level }: LogConfig,
	write: (line: string) => void,
	now: () => Date = () => new Date(),
): Logger {
	const isEnabled = (wanted: LogLevel): boolean => logLevels.indexOf(wanted) >= logLevels.indexOf(level);
	return {
		isEnabled,
		log(wanted, message, fields = {}) {
			if (isEnabled(wanted)) {
				const time = `${now().toISOString().slice(0, 19)}Z`;
				write(
					`${format === "json" ? jsonLine(wanted, message, fields, time) : textLine(wanted, message, fields, time)}\n`,
				);
			}
		},
	};
}

type Fields = Readonly<Record<string, unknown>>;

function jsonLine(level: LogLevel, message: string, fields: Fields, time: string): string {
	return JSON.stringify(
		Object.fromEntries(
			Object.entries({ ...fields, level, msg: message, time }).sort(([a], [b]) => (a < b ? -1 : 1)),
		),
	);
}

function textLine(level: LogLevel, message: string, fields: Fields, time: string): string {
	const rest = Object.entries(fields)
		.sort(([a], [b]) => (a < b ? -1 : 1))
		.map(([key, value]) => ` ${key}=${quoted(typeof value === "string" ? value : JSON.stringify(value))}`);
	return `time="${time}" level=${level} msg=${quoted(message)}${rest.join("")}`;
}

function quoted(text: string): string {
	return /^[\w./@^+-]+$/.test(text) ? text : JSON.stringify(text);
}
