import { SlipwayError } from "../../errors/errors.ts";

const symbolic = /^[augo]*(?:[+\-=][rstwXxugo]*)+(?:,[augo]*(?:[+\-=][rstwXxugo]*)+)*$/;

/** `--chmod`: octal to a number, symbolic (`u=rwX,go=rX`) as it is. Throws `invalid-argument`. */
export function parseCopyMode(text: string): number | string {
	if (/^[0-7]+$/.test(text) && Number.parseInt(text, 8) <= 0o7777) {
		return Number.parseInt(text, 8);
	}
	if (/^[0-9]/.test(text)) {
		throw new SlipwayError(
			"invalid-argument",
			`invalid chmod parameter: '${text}'. it should be octal string and between 0 and 07777`,
		);
	}
	if (!symbolic.test(text)) {
		throw new SlipwayError("invalid-argument", "invalid syntax");
	}
	return text;
}
