// The list: one link per execution, newest first, with search. Elements are kept from one answer to the next, so that
// focus, selection and a screen reader's place survive.

import { byId, element, setText } from "./dom.js";
import { ExecutionsFeed } from "./executions-feed.js";
import { age, commandOf, count, duration, hasEnded, lengthOf, moment, outcomeOf, stateOf, waitingOf } from "./format.js";

const SEARCHED = 1000; // a search looks at least this far back

/** The address of an execution on this page. The caller belongs to it: ids are unique within a caller only. */
export const addressOf = ({ caller, execId }) => `#/${encodeURIComponent(caller)}/${encodeURIComponent(execId)}`;

function haystackOf(execution) {
  const labels = Object.entries(execution.labels ?? {}).map((pair) => pair.join("="));
  return [commandOf(execution), execution.execId, execution.caller, outcomeOf(execution), ...labels].join("\n").toLowerCase();
}

/** One line of the list, and how it is brought up to date. */
class Item {
  constructor() {
    this.glyph = element("span", { className: "glyph", attributes: { "aria-hidden": "true" } });
    this.command = element("span", { className: "item-command" });
    this.outcome = element("span", { className: "outcome" });
    this.caller = element("span", { className: "item-caller" });
    this.labels = element("span", { className: "item-labels" });
    this.length = element("span", { className: "item-length" });
    this.age = element("time", { className: "item-age" });
    const under = element("span", { className: "item-under" }, this.outcome, this.caller, this.labels, this.length, this.age);
    this.waiting = element("span", { className: "item-waiting" });
    this.link = element("a", { className: "item" }, this.glyph, this.command, under, this.waiting);
    this.shown = element("li", {}, this.link);
  }

  show(execution, current) {
    this.execution = execution;
    const address = addressOf(execution);
    if (this.link.getAttribute("href") !== address) this.link.setAttribute("href", address);
    this.link.dataset.state = stateOf(execution);
    this.link.toggleAttribute("data-ended", hasEnded(execution));
    if (address === current) this.link.setAttribute("aria-current", "true");
    else this.link.removeAttribute("aria-current");
    setText(this.command, commandOf(execution));
    setText(this.outcome, outcomeOf(execution));
    setText(this.waiting, waitingOf(execution) && (execution.waitingMessage ?? ""));
    this.waiting.title = this.waiting.textContent;
    setText(this.caller, execution.caller);
    setText(this.labels, Object.entries(execution.labels ?? {}).map((pair) => pair.join("=")).join(" "));
    this.tick();
  }

  tick() {
    const length = lengthOf(this.execution);
    setText(this.length, length === null ? "" : duration(length));
    if (!this.execution.createTime) return;
    setText(this.age, age(this.execution.createTime));
    this.age.title = moment(this.execution.createTime);
  }
}

export class ExecutionsList {
  #list = byId("list");
  #note = byId("list-note");
  #search = byId("search");
  #items = new Map(); // address -> Item
  #executions = null;
  #more = false;
  #current = "";
  #filter = "all";

  /** `onConnection(error, wait)`: null when the server answers. `onList(executions)`: what it has answered. */
  constructor(onConnection, onList) {
    this.feed = new ExecutionsFeed({
      list: (executions, more) => {
        this.#executions = executions;
        this.#more = more;
        onConnection(null);
        this.#show();
        onList(executions);
      },
      away: onConnection,
    });
    this.#search.addEventListener("input", () => this.#searched());
    byId("filters").addEventListener("click", ({ target }) => target.dataset.filter && this.#filtered(target.dataset.filter));
    byId("older").addEventListener("click", () => this.feed.showOlder());
    setInterval(() => document.hidden || this.#items.forEach((item) => item.tick()), 1000);
  }

  /** Marks the one that is open. */
  mark(address) {
    this.#current = address;
    if (this.#executions) this.#show();
  }

  /** Moves the focus by so many; from the open one when none has it. */
  move(by) {
    const links = [...this.#list.querySelectorAll(".item")];
    const focused = links.indexOf(document.activeElement);
    const from = focused >= 0 ? focused : links.findIndex((link) => link.hasAttribute("aria-current"));
    const to = from < 0 ? 0 : from + by;
    links[Math.max(0, Math.min(links.length - 1, to))]?.focus();
  }

  #searched() {
    if (this.#search.value.trim()) this.feed.showOlder(SEARCHED);
    if (this.#executions) this.#show();
  }

  #filtered(name) {
    this.#filter = name;
    for (const button of byId("filters").children) button.setAttribute("aria-pressed", String(button.dataset.filter === name));
    this.feed.filter(name);
  }

  #show() {
    const words = this.#search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.#executions.filter((one) => {
      const haystack = words.length ? haystackOf(one) : "";
      return words.every((word) => haystack.includes(word));
    });
    this.#arrange(found);
    setText(this.#note, this.#noteFor(found.length, words.length > 0));
    byId("older").hidden = !this.#more;
  }

  #arrange(executions) {
    const kept = new Map();
    let before = this.#list.firstChild;
    for (const execution of executions) {
      const address = addressOf(execution);
      const item = this.#items.get(address) ?? new Item();
      item.show(execution, this.#current);
      kept.set(address, item);
      if (item.shown === before) before = before.nextSibling;
      else this.#list.insertBefore(item.shown, before);
    }
    for (const [address, item] of this.#items) if (!kept.has(address)) item.shown.remove();
    this.#items = kept;
  }

  #noteFor(shown, searching) {
    const all = this.#executions.length;
    if (searching) return `${count(shown)} of the newest ${count(all)} match.`;
    if (shown) return this.#more ? `The newest ${count(all)}.` : "";
    return this.#filter === "all" ? "Nothing has been started yet." : `None ${this.#filter === "all" ? "" : this.#filter}.`;
  }
}
