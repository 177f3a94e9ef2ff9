// Keeps the list of executions fresh: asks again and again, less often when nobody looks or nobody answers.

import * as api from "./api.js";

const EVERY = 2000;
const LONGEST_WAIT = 10_000;
const LIMITS = [100, 500, 1000]; // then 1000 more each time
const PAGE = 1000; // the most the server gives at once
const STATES = {
  running: ["STATE_STARTING", "STATE_RUNNING"],
  succeeded: ["STATE_SUCCEEDED"],
  failed: ["STATE_FAILED"],
  lost: ["STATE_LOST"],
};

export class ExecutionsFeed {
  #listener;
  #filter = "all";
  #limit = LIMITS[0];
  #everybody = true; // an operator sees everybody's; who is refused asks for his own
  #failures = 0;
  #timer = 0;
  #asking = new AbortController();

  /** Calls listener.list(executions, more) and listener.away(error, wait). */
  constructor(listener) {
    this.#listener = listener;
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
    addEventListener("online", () => this.refresh());
    addEventListener("offline", () => this.refresh());
  }

  filter(name) {
    this.#filter = name;
    this.#limit = LIMITS[0];
    this.refresh();
  }

  /** Goes further back: for the next step, or at least to `limit`. */
  showOlder(limit = LIMITS.find((step) => step > this.#limit) ?? this.#limit + PAGE) {
    if (limit <= this.#limit) return;
    this.#limit = limit;
    this.refresh();
  }

  /** The page acts as somebody else now. */
  startOver() {
    this.#everybody = true;
    this.refresh();
  }

  /** Asks now. What was being asked is no longer of interest. */
  async refresh() {
    clearTimeout(this.#timer);
    this.#asking.abort();
    const asking = (this.#asking = new AbortController());
    let wait = EVERY;
    try {
      const { executions, more } = await this.#ask(asking.signal);
      if (asking.signal.aborted) return;
      this.#failures = 0;
      this.#listener.list(executions, more);
    } catch (error) {
      if (asking.signal.aborted) return;
      if (!(error instanceof api.ApiError)) throw error;
      wait = Math.min(LONGEST_WAIT, 500 * 2 ** this.#failures++);
      this.#listener.away(error, wait);
    }
    // A page in the background is asked for nothing; coming to the front, it asks at once.
    this.#timer = setTimeout(() => document.hidden || this.refresh(), wait);
  }

  async #ask(signal) {
    try {
      return await this.#pages(this.#everybody ? "*" : "", signal);
    } catch (error) {
      if (error.status !== 403 || !this.#everybody) throw error;
      this.#everybody = false;
      return this.#pages("", signal);
    }
  }

  async #pages(caller, signal) {
    const states = STATES[this.#filter] ?? [];
    const found = [];
    let pageToken = "";
    do {
      const pageSize = Math.min(PAGE, this.#limit - found.length);
      const page = await api.list({ states, caller, pageToken, pageSize, signal });
      found.push(...page.executions);
      pageToken = page.nextPageToken;
    } while (pageToken && found.length < this.#limit);
    return { executions: found, more: Boolean(pageToken) };
  }
}
