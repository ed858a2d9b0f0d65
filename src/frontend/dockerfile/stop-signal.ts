import { SlipwayError } from "../../errors/errors.ts";
import { toUpper } from "./go-text.ts";

const names: ReadonlySet<string> = new Set(
	(
		"ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP TSTP " +
		"TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX"
	).split(" "),
);

/** Throws `invalid-argument` for what is neither a number but 0 nor the name of a Linux signal. */
export function checkSignal(signal: string): void {
	const valid = /^[+-]?[0-9]+$/.test(signal) ? Number(signal) !== 0 : isName(toUpper(signal));
	if (!valid) {
		throw new SlipwayError("invalid-argument", `invalid signal: ${signal}`);
	}
}

function isName(signal: string): boolean {
	const name = signal.startsWith("SIG") ? signal.slice(3) : signal;
	return names.has(name) || /^(?:RTMIN\+(?:[1-9]|1[0-5])|RTMAX-(?:[1-9]|1[0-4]))$/.test(name);
}
