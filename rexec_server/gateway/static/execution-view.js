// One execution: what it is, what can be done with it, and its output as it comes.

import * as api from "./api.js";
import { copyText, downloadLog } from "./clipboard.js";
import { confirm, tell, toast } from "./dialogs.js";
import { byId, setText } from "./dom.js";
import { factsOf } from "./facts.js";
import { Follower } from "./follow.js";
import {
  commandOf, count, duration, exitOf, hasEnded, lengthOf, mayLackItsEnd, outcomeOf, size, stateOf, waitingOf,
} from "./format.js";
import { LogBuffer } from "./log-buffer.js";
import { LogView } from "./log-view.js";

const SHOWN_AT_MOST = 16 * 1024 * 1024; // bytes of a long log that are fetched to be looked at; Download has it all
const CHANNELS = { CHANNEL_STDOUT: "stdout", CHANNEL_STDERR: "stderr" };

export class ExecutionView {
  #key = null;
  #execution = null;
  #follower = null;
  #buffer = new LogBuffer();
  #log = new LogView(byId("log"), (place) => this.#placed(place));
  #status = "";
  #missing = 0; // bytes that could not be shown, as they are no longer kept
  #onChange;

  /** `onChange()`: something was done here that the list should show. `onAgain(execution)`: start it once more. */
  constructor({ onChange, onAgain, onDeleted }) {
    this.#onChange = onChange;
    const on = (id, act) => byId(id).addEventListener("click", act);
    on("cancel", () => this.askCancel());
    on("signal", () => this.#askSignal());
    on("delete", () => this.#askDelete(onDeleted));
    on("again", () => onAgain(this.#execution));
    on("copy", () => this.#copy());
    on("download", () => this.#download());
    on("stay", () => this.#log.stay(!this.#log.stays));
    on("to-end", () => this.#log.stay(true));
    on("times", ({ currentTarget }) => {
      const shown = byId("log").classList.toggle("with-times");
      currentTarget.setAttribute("aria-pressed", String(shown));
    });
    setInterval(() => document.hidden || this.#tick(), 250);
  }

  /** Shows this execution, or none. `known` is what the list knows of it already. */
  open(key) {
    this.#follower?.stop();
    this.#key = key;
    this.#execution = null; // also lets go of the end of the one before
    this.#status = "connecting";
    this.#missing = 0;
    byId("nothing").hidden = Boolean(key);
    byId("execution").hidden = !key;
    if (!key) return;
    this.#buffer = new LogBuffer();
    this.#log.show(this.#buffer);
    this.#showExecution({ ...key, state: "" });
    this.#follower = new Follower(key, SHOWN_AT_MOST, this.#listener());
    this.#follower.run();
  }

  get isOpen() {
    return this.#key !== null;
  }

  /**
   * Takes from the list's answer how it stands: that it waits, and for what, is not in its stream. The end is.
   * One that is not in the list, which may be filtered or short, is asked for.
   */
  async learn(executions) {
    const key = this.#key;
    if (!key || !this.#execution || hasEnded(this.#execution)) return;
    let now = executions.find(({ caller, execId }) => caller === key.caller && execId === key.execId);
    try {
      now ??= await api.get(key);
    } catch {
      return; // its stream tells what is wrong
    }
    if (key === this.#key && !hasEnded(now)) this.#showExecution(now);
  }

  /** To the first line, or to the end and stay there. */
  go(where) {
    if (where === "start") this.#log.toStart();
    else this.#log.stay(true);
  }

  /** The server may be back: no reason to sit out a wait. */
  tryNow() {
    this.#follower?.tryNow();
  }

  askCancel() {
    if (!this.#execution || hasEnded(this.#execution)) return;
    const key = this.#key;
    confirm({
      heading: "Cancel this command?",
      command: commandOf(this.#execution),
      text: "It and everything it started is asked to end (SIGTERM), and killed if it does not.",
      button: "Yes, cancel it",
      action: async () => this.#done(key, await api.cancel(key)),
    });
  }

  #askSignal() {
    const key = this.#key;
    confirm({
      heading: "Send a signal?",
      command: commandOf(this.#execution),
      text: "What it does is up to the command; SIGKILL ends it at once.",
      button: "Send it",
      withSignal: true,
      action: async (signal, scope) => this.#done(key, await api.sendSignal(key, signal, scope)),
    });
  }

  #askDelete(onDeleted) {
    const key = this.#key;
    confirm({
      heading: "Delete this execution?",
      command: commandOf(this.#execution),
      text: "Its output and its record are forgotten. This cannot be undone.",
      button: "Yes, delete it",
      action: async () => {
        await api.remove(key);
        toast("Deleted");
        onDeleted();
      },
    });
  }

  #done(key, execution) {
    if (key === this.#key) this.#showExecution(execution);
    this.#onChange();
  }

  // Each call checks that it is still about what is shown: a late word about the one before must not land here.
  #listener() {
    const buffer = this.#buffer;
    const mine = (act) => (...given) => {
      if (buffer !== this.#buffer || !this.#key) return;
      act(...given);
      this.#log.changed();
      this.#tick();
    };
    return {
      begins: mine((lost, skipped) => {
        if (lost) this.#lacks(lost);
        if (skipped) buffer.note(`${size(skipped)} of older output is not shown here; Download has it.`);
      }),
      connected: mine(() => (this.#status = "live")),
      away: mine((error, wait) => (this.#status = `${error.message} Trying again in ${Math.ceil(wait / 1000)} s.`)),
      execution: mine((execution) => this.#showExecution(execution)),
      chunks: mine((chunks) => {
        for (const { channel, bytes, readTime } of chunks) buffer.write(CHANNELS[channel] ?? "stdout", bytes, readTime);
      }),
      gap: mine((start, end) => this.#lacks(end - start)),
      ended: mine((execution) => this.#ended(execution)),
      refused: mine((error) => {
        this.#status = "";
        tell(byId("problem"), error.status === 404 ? "There is no such execution. It may have been deleted." : error.message);
      }),
    };
  }

  /** Tells where it is missing, and above the log for as long as that is shown, how much. */
  #lacks(bytes) {
    this.#missing += bytes;
    this.#buffer.note(`${size(bytes)} of output are no longer kept.`);
  }

  #ended(execution) {
    this.#status = endingOf(execution, this.#missing);
    this.#showExecution(execution);
    this.#onChange();
  }

  #showExecution(execution) {
    // The answer to a call can be older than what the stream has told in the meantime: an end is final.
    if (this.#execution && hasEnded(this.#execution) && !hasEnded(execution)) return;
    const known = Boolean(execution.state);
    this.#execution = known ? execution : null;
    const state = byId("state");
    state.dataset.state = known ? stateOf(execution) : "";
    setText(state, known ? outcomeOf(execution) : "…");
    setText(byId("command"), known ? commandOf(execution) : execution.execId);
    const { startError } = execution;
    tell(byId("problem"), startError ? `${startError.errno}: ${startError.message}` : "");
    tell(byId("waiting"), known && waitingOf(execution) ? execution.waitingMessage || waitingOf(execution) : "");
    byId("cancel").hidden = byId("signal").hidden = !known || hasEnded(execution);
    byId("delete").hidden = !known || !hasEnded(execution) || !this.mayDelete(execution);
    byId("again").hidden = !known;
    byId("facts").replaceChildren(...(known ? factsOf(execution) : []));
    this.#tick();
  }

  /** The contract lets nobody delete another caller's. Set by the application, which knows who it is. */
  mayDelete = () => true;

  #tick() {
    if (!this.#key) return;
    const execution = this.#execution;
    const length = execution && lengthOf(execution);
    const exit = execution && hasEnded(execution) ? exitOf(execution) : "";
    const figures = [exit === (execution && outcomeOf(execution)) ? "" : exit, length === null ? "" : duration(length)];
    setText(byId("figures"), execution ? figures.filter(Boolean).join(" · ") : "");
    const { lines, dropped } = this.#buffer;
    const place = byId("log-status");
    place.dataset.status = ["live", "complete", "connecting"].includes(this.#status) ? this.#status : "away";
    const newest = dropped ? `the newest ${count(this.#buffer.rows.length)} are here` : "";
    setText(place, [this.#status, `${count(lines)} ${lines === 1 ? "line" : "lines"}`, newest].filter(Boolean).join(" · "));
    const lacking = `${size(this.#missing)} of the output are no longer kept: what is shown here is not whole.`;
    tell(byId("missing"), this.#missing ? lacking : "");
    setText(byId("log-limit"), execution ? briefLimitOf(execution) : "");
    tell(byId("log-empty"), execution && !lines && !this.#missing ? emptyOf(execution) : "");
  }

  #placed({ stays, below }) {
    byId("stay").setAttribute("aria-pressed", String(stays));
    byId("to-end").hidden = stays || below <= 0;
    if (!stays) setText(byId("to-end"), `Jump to end · ${count(below)} below`);
  }

  async #copy() {
    const selected = getSelection();
    const inLog = selected.anchorNode && byId("log").contains(selected.anchorNode) && String(selected);
    try {
      await copyText(inLog || this.#buffer.text());
      const whole = this.#missing || this.#buffer.dropped ? "; the output is not whole" : "";
      toast(inLog ? "Copied what is selected" : `Copied all lines that are loaded${whole}`);
    } catch (error) {
      toast(`Not copied: ${error.message}`);
    }
  }

  async #download() {
    const button = byId("download");
    button.disabled = true;
    try {
      const execution = await api.get(this.#key);
      const missing = await downloadLog(execution, this.#key, (part) => setText(button, `${Math.floor(part * 100)} %`));
      if (missing) toast(`Downloaded without ${size(missing)} that are no longer kept`);
    } catch (error) {
      toast(`Not downloaded: ${error.message}`);
    } finally {
      setText(button, "Download");
      button.disabled = false;
    }
  }
}

function endingOf(execution, missing) {
  if (missing) return "ended, not whole";
  if (!mayLackItsEnd(execution)) return "complete";
  if (execution.state === "STATE_LOST") return "ended; its last output may be missing";
  return "ended; another process still held its output open";
}

function emptyOf(execution) {
  if (Number(execution.logEndOffset)) return ""; // it comes
  if (!hasEnded(execution)) return "Nothing written yet.";
  return execution.state === "STATE_LOST" ? "No output of it is kept." : "It wrote nothing.";
}

function briefLimitOf({ maxOutputBytes = "0", overflowWaits }) {
  if (!Number(maxOutputBytes)) return ""; // a server that does not tell
  return `${overflowWaits ? "waits at" : "keeps"} ${size(Number(maxOutputBytes))}`;
}
