/**
 * Environment variables that change how progress is drawn; others may be present.
 *
 * - `NO_COLOR`: any value but the empty one turns colors off (https://no-color.org).
 * - `BUILDKIT_COLORS`: `run=green:cancel=255,165,0:error=light-red:warning=default`.
 * - `BUILDKIT_TTY_LOG_LINES`: lines of log under a running step; at least 6 are shown.
 * - `TTY_DISPLAY_RATE`: milliseconds between redraws.
 * - `PROGRESS_NO_TRUNC`: `0` cuts names in plain output at 72 bytes.
 */
export type DisplayEnv = Readonly<Record<string, string | undefined>>;

export interface DisplaySettings {
	/** Escape sequences that start a color; undefined for none. */
	readonly colors: DisplayColors;
	readonly logLines: number;
	readonly redrawMs: number;
	readonly tickMs: number;
	readonly truncateNames: boolean;
}

export interface DisplayColors {
	readonly run: string | undefined;
	readonly cancel: string | undefined;
	readonly error: string | undefined;
	readonly warning: string | undefined;
}

export const minLogLines = 6;

export function readDisplaySettings(env: DisplayEnv, warn: (message: string) => void): DisplaySettings {
	const rate = positiveInteger(env["TTY_DISPLAY_RATE"]);
	return {
		colors: readColors(env, warn),
		logLines: Math.max(positiveInteger(env["BUILDKIT_TTY_LOG_LINES"]) ?? 0, minLogLines),
		redrawMs: rate ?? 100,
		tickMs: rate ?? 150,
		truncateNames: env["PROGRESS_NO_TRUNC"] === "0",
	};
}

function positiveInteger(text: string | undefined): number | undefined {
	return text !== undefined && /^\+?\d{1,9}$/.test(text) && Number(text) > 0 ? Number(text) : undefined;
}

const sgr = (code: number | string): string => `\x1b[${code}m`;

const namedColors: ReadonlyMap<string, string> = new Map([
	["default", sgr(39)],
	...["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"].flatMap(
		(name, i) =>
			[
				[name, sgr(30 + i)],
				[`light-${name}`, sgr(90 + i)],
			] as const,
	),
]);

function readColors(env: DisplayEnv, warn: (message: string) => void): DisplayColors {
	if (env["NO_COLOR"]) {
		return { run: undefined, cancel: undefined, error: undefined, warning: undefined };
	}
	const colors = { run: sgr(34), cancel: sgr(33), error: sgr(31), warning: sgr(33) };
	for (const field of (env["BUILDKIT_COLORS"] ?? "").split(":").filter((text) => text !== "")) {
		const [key = "", value, ...more] = field.split("=");
		if (value === undefined || more.length > 0) {
			warn(`Could not parse BUILDKIT_COLORS component: ${field}: valid entry must have exactly two fields`);
			continue;
		}
		const color = namedColors.get(value.toLowerCase()) ?? readRgb(value, warn);
		const name = key.toLowerCase();
		if (color === undefined) {
			continue;
		}
		if (!Object.hasOwn(colors, name)) {
			warn(`Unknown key found in BUILDKIT_COLORS (expected: run, cancel, error, or warning): ${name}`);
			continue;
		}
		colors[name as keyof typeof colors] = color;
	}
	return colors;
}

/** `255,0,0` as the nearest color of the 6 by 6 by 6 cube that terminals with 256 colors have. */
function readRgb(value: string, warn: (message: string) => void): string | undefined {
	if (!value.includes(",")) {
		warn(
			`Unknown color value found in BUILDKIT_COLORS: ${value}: colors must be a name from the pre-defined list or a valid 3-part RGB value`,
		);
		return undefined;
	}
	const parts = value.split(",");
	if (parts.length !== 3) {
		warn(
			`Could not parse value ${value} as valid RGB color. Ignoring.: valid RGB color must have three fields`,
		);
		return undefined;
	}
	if (!parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) <= 255)) {
		warn(
			`A field in BUILDKIT_COLORS appears to contain an RGB value that is not within the valid range of 0-255: ${value}`,
		);
		return undefined;
	}
	const [red = 0, green = 0, blue = 0] = parts.map((part) => Math.floor(Number(part) / 43));
	return sgr(`38;5;${16 + 36 * red + 6 * green + blue}`);
}
