// One execution's log, followed to its end through whatever goes away in between: network, gateway, server.

import * as api from "./api.js";
import { eventsOf } from "./sse.js";

const FIRST_WAIT = 250;
const LONGEST_WAIT = 8000;
const HIDDEN_FOR = 5000; // a tab that is left for longer lets go of its connection
const SILENCE = 45_000; // three heartbeats: a connection that gave none is dead, whatever the network says

/**
 * Follows a log until its end, from its beginning or, if it is longer than `mostBytes`, from that far before its end.
 * Calls on the listener:
 *   begins(lost, skipped)       before all else: bytes no longer kept, and bytes kept but not followed, before the first
 *   execution(execution)        as it is now
 *   chunks([{channel, offset, bytes, readTime}])   output, each byte exactly once and in order
 *   gap(start, end)             bytes that are no longer kept
 *   connected() / away(error, wait)
 *   ended(execution)            after all output
 *   refused(error)              will not get better by trying again
 */
export class Follower {
  #key;
  #listener;
  #mostBytes;
  #offset = null; // where to go on; null: not begun
  #stopped = new AbortController();
  #connection = null;
  #asleep = false;
  #sleep = 0;
  #wake = () => {};
  #failures = 0;

  constructor(key, mostBytes, listener) {
    this.#key = key;
    this.#mostBytes = mostBytes;
    this.#listener = listener;
    // Back from sleep or out of a tunnel: no reason to sit out the rest of a wait.
    addEventListener("online", () => this.tryNow(), { signal: this.#stopped.signal });
    document.addEventListener("visibilitychange", () => this.#seenOrNot(), { signal: this.#stopped.signal });
  }

  stop() {
    clearTimeout(this.#sleep);
    this.#stopped.abort();
    this.#wake();
  }

  tryNow() {
    this.#wake();
  }

  async run() {
    while (!this.#stopped.signal.aborted) {
      let trouble = new api.ApiError("The connection was lost.");
      try {
        if (await this.#once()) return this.stop();
      } catch (error) {
        if (this.#stopped.signal.aborted) return;
        if (error instanceof api.ApiError) trouble = error;
        if (!trouble.passes) {
          this.stop();
          return this.#listener.refused(trouble);
        }
      }
      if (this.#asleep) await new Promise((resolve) => (this.#wake = resolve));
      else if (!this.#stopped.signal.aborted) await this.#pause(trouble);
    }
  }

  // Browsers open six connections to a host and no more: a few tabs left open would shut out all others. What comes
  // meanwhile is not lost; it is asked for when somebody looks again.
  #seenOrNot() {
    clearTimeout(this.#sleep);
    if (document.hidden) {
      this.#sleep = setTimeout(() => {
        this.#asleep = true;
        this.#connection?.abort();
      }, HIDDEN_FOR);
    } else {
      this.#asleep = false;
      this.#wake();
    }
  }

  // One connection; true when it brought the end.
  async #once() {
    const connection = (this.#connection = new AbortController());
    const signal = AbortSignal.any([connection.signal, this.#stopped.signal]);
    let quiet;
    const alive = () => {
      clearTimeout(quiet);
      quiet = setTimeout(() => connection.abort(), SILENCE);
    };
    alive();
    try {
      if (this.#offset === null) await this.#begin(signal);
      const body = await api.follow(this.#key, this.#offset, signal);
      this.#listener.connected();
      for await (const event of eventsOf(body, alive)) {
        if (this.#stopped.signal.aborted) return true;
        if (this.#take(event)) return true;
      }
      return false;
    } finally {
      clearTimeout(quiet);
      connection.abort();
    }
  }

  async #begin(signal) {
    const execution = await api.get(this.#key, signal);
    this.#listener.execution(execution);
    const kept = Number(execution.logStartOffset);
    this.#offset = Math.max(kept, Number(execution.logEndOffset) - this.#mostBytes);
    this.#listener.begins(kept, this.#offset - kept);
  }

  // The offset moves only after an event was taken whole: what a broken connection cut off is asked for again.
  #take({ type, data, id }) {
    const said = JSON.parse(data);
    if (type === "failure") throw failureOf(said);
    this.#failures = 0;
    if (type === "snapshot") this.#listener.execution(said);
    else if (type === "output") this.#output(said.chunks);
    else if (type === "gap") this.#gap(said);
    if (/^\d+$/.test(id)) this.#offset = Math.max(this.#offset, Number(id));
    if (type !== "end") return false;
    this.#listener.ended(said);
    return true;
  }

  #output(chunks = []) {
    const fresh = chunks.map((chunk) => this.#unseen(chunk)).filter((chunk) => chunk.bytes.length);
    if (fresh.length) this.#listener.chunks(fresh);
  }

  // Belt and braces: whatever a resumed stream begins with, a byte that was shown is not shown again.
  #unseen({ channel, offset = "0", readTime = "", ...content }) {
    const from = Number(offset);
    const bytes = api.bytesOf(content);
    const seen = Math.min(bytes.length, Math.max(0, this.#offset - from));
    this.#offset = Math.max(this.#offset, from + bytes.length);
    return { channel, readTime, offset: from + seen, bytes: bytes.subarray(seen) };
  }

  #gap({ startOffset, endOffset }) {
    if (Number(endOffset) <= this.#offset) return;
    this.#listener.gap(Math.max(this.#offset, Number(startOffset)), Number(endOffset));
  }

  async #pause(trouble) {
    const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#failures++);
    const jittered = wait * (0.75 + Math.random() / 2); // a restarted gateway should not meet all pages in one instant
    this.#listener.away(trouble, jittered);
    await new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, jittered);
    });
  }
}

// The stream was open when the server behind the gateway failed: the refusal comes as an event. A 401 only says that
// the token with which it was opened is too old by now to open it again: the next attempt has a fresh one.
function failureOf(said) {
  const { code = 503, message = "The server went away." } = said.error ?? {};
  if (code === 401) return new api.ApiError("The connection was lost.");
  return new api.ApiError(message, { status: code });
}
