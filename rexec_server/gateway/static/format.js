// How things are said: states, times, sizes, commands. No element is made here.

let skew = 0; // how far the server's clock is ahead of this one, in milliseconds

/** Learns the server's time from a Date header, so that an age is right on a device whose clock is not. */
export function skewOf(dateHeader) {
  const there = Date.parse(dateHeader ?? "");
  if (Number.isNaN(there)) return;
  const ahead = there + 500 - Date.now(); // the header has whole seconds
  skew = Math.abs(ahead) < 2000 ? 0 : ahead;
}

/** True when this device's clock is so far from the server's that no token of it is good. */
export const clockIsOff = () => Math.abs(skew) > 30_000;

export const now = () => Date.now() + skew;

const ENDED = { STATE_SUCCEEDED: "succeeded", STATE_FAILED: "failed", STATE_LOST: "lost" };

/** The state as one word, which is also its class: starting, running, waiting, succeeded, failed, lost. */
export function stateOf(execution) {
  if (waitingOf(execution)) return "waiting";
  return ENDED[execution.state] ?? (execution.state === "STATE_RUNNING" ? "running" : "starting");
}

export const hasEnded = ({ state }) => state in ENDED;

const WAITING = { WAITING_UNSPECIFIED: "", WAITING_READER: "waiting for a reader", WAITING_DISK: "waiting for the disk" };

/** What an unfinished one waits for, in a few words; empty when it makes progress. */
export function waitingOf(execution) {
  if (hasEnded(execution) || !execution.waiting) return "";
  return WAITING[execution.waiting] ?? "waiting"; // a newer server may know more reasons
}

const SIGNALS = {
  1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL",
  10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM", 18: "SIGCONT",
  19: "SIGSTOP", 20: "SIGTSTP", 24: "SIGXCPU", 25: "SIGXFSZ",
};

export const signalName = (number) => SIGNALS[number] ?? `signal ${number}`;

const REASONS = {
  REASON_CANCELLED: "cancelled", REASON_TIMED_OUT: "timed out", REASON_OUTPUT_LIMIT: "output limit",
  REASON_OUT_OF_MEMORY: "out of memory", REASON_UNATTENDED: "unattended", REASON_SERVER_SHUTDOWN: "server stopped",
};

/** How it stands, in a word or two: running, waiting for a reader, exit 0, SIGSEGV, cancelled, could not start. */
export function outcomeOf(execution) {
  if (!hasEnded(execution)) return waitingOf(execution) || stateOf(execution);
  if (execution.state === "STATE_LOST") return "lost";
  if (execution.reason === "REASON_START_FAILED") return "could not start";
  return REASONS[execution.reason] ?? exitOf(execution);
}

/** True when it ended and something that it started could still have written, or its end was not seen. */
export const mayLackItsEnd = (execution) =>
  hasEnded(execution) && !execution.outputComplete && execution.reason !== "REASON_START_FAILED";

/** The exit as the system reported it; empty when there was none. Nothing is guessed. */
export function exitOf({ exitCode, signal }) {
  if (exitCode !== undefined) return `exit ${exitCode}`;
  return signal === undefined ? "" : signalName(signal);
}

const SAFE_WORD = /^[\w@%+=:,./-]+$/;
const quoted = (word) => (SAFE_WORD.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

/** The command as one would type it. */
export const commandOf = ({ shell, arguments: words = [] }) => shell || words.map(quoted).join(" ");

/** How long it ran or has been running, in milliseconds; null before its start. */
export function lengthOf({ startTime, endTime }) {
  if (!startTime) return null;
  return Math.max(0, (endTime ? Date.parse(endTime) : now()) - Date.parse(startTime));
}

/** 0.42 s, 12 s, 5 min 3 s, 2 h 10 min, 3 d 4 h. */
export function duration(milliseconds, brief = false) {
  const seconds = milliseconds / 1000;
  if (seconds < 10 && !brief) return `${seconds.toFixed(seconds < 1 ? 2 : 1)} s`;
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const parts = [];
  let rest = Math.floor(seconds);
  for (const [name, size] of units) {
    const count = Math.floor(rest / size);
    if (count || (name === "s" && !parts.length)) parts.push(`${count} ${name}`);
    rest %= size;
    if (parts.length === (brief ? 1 : 2)) break;
  }
  return parts.join(" ");
}

/** How long ago: 12 s ago. */
export function age(time) {
  const past = now() - Date.parse(time);
  return past < 1000 ? "just now" : `${duration(past, true)} ago`;
}

const LOCAL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
export const moment = (time) => LOCAL.format(new Date(time));

/** The time of day with milliseconds, for the margin of the log. */
export function clock(time) {
  const at = new Date(time);
  const two = (number) => String(number).padStart(2, "0");
  const milliseconds = String(at.getMilliseconds()).padStart(3, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${milliseconds}`;
}

/** 12 B, 3.4 KB, 120 MB; powers of 1000, as disks are sold. */
export function size(bytes) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let at = 0;
  while (bytes >= 999.5 && at < units.length - 1) {
    bytes /= 1000;
    at++;
  }
  return `${at === 0 || bytes >= 99.5 ? Math.round(bytes) : bytes.toFixed(1)} ${units[at]}`;
}

const COUNT = new Intl.NumberFormat();
export const count = (number) => COUNT.format(number);
