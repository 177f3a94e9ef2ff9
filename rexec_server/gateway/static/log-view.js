// Shows a LogBuffer: however long it is, only the rows in sight are elements.

import { clock } from "./format.js";
import { element } from "./dom.js";

const BEYOND = 20; // rows drawn above and below what is in sight, so that scrolling finds them there
const AT_END = 1.5; // pixels; fractional scroll positions never quite arrive

const FLAGS = ["bold", "dim", "italic", "underline", "strike", "inverse", "hidden"];

export class LogView {
  #scroller;
  #canvas;
  #buffer;
  #onPlace;
  #rowHeight = 20;
  #drawn = new Map(); // row -> {element, version, top}
  #frame = 0;
  #stays = true; // at the end, whatever comes
  #lastTop = 0;
  #widest = 0;
  #forgotten = 0;

  /** `onPlace({stays, below})` is told, whenever it changes, whether the view stays at the end. */
  constructor(scroller, onPlace) {
    this.#scroller = scroller;
    this.#onPlace = onPlace;
    this.#canvas = element("div", { className: "log-canvas" });
    scroller.replaceChildren(this.#canvas);
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.#resized()).observe(scroller);
  }

  /** Shows another log, from its end. */
  show(buffer) {
    this.#buffer = buffer;
    this.#widest = 0;
    this.#forgotten = buffer.dropped;
    this.#canvas.replaceChildren();
    this.#canvas.style.removeProperty("min-width");
    this.#drawn.clear();
    this.#resized();
    this.stay(true);
  }

  /** The buffer has changed. Cheap: drawing happens once per frame, however often it is called. */
  changed() {
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  /** Stay at the end and follow what comes, or stay where one reads. */
  stay(wanted) {
    this.#stays = wanted;
    if (wanted) this.changed();
    this.#tell();
  }

  get stays() {
    return this.#stays;
  }

  toStart() {
    this.stay(false);
    this.#scroller.scrollTop = 0;
  }

  #resized() {
    const probe = element("div", { className: "log-row" }, "0");
    this.#canvas.append(probe);
    this.#rowHeight = probe.getBoundingClientRect().height || this.#rowHeight;
    probe.remove();
    for (const known of this.#drawn.values()) known.top = -1;
    if (this.#buffer) this.changed();
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    const atEnd = scrollHeight - scrollTop - clientHeight <= AT_END;
    // A scroll event says nothing of who scrolled. Upwards from where #draw last put it, that was the reader.
    if (this.#stays && !atEnd && scrollTop < this.#lastTop - 1) this.stay(false);
    else if (!this.#stays && atEnd) this.stay(true);
    this.changed();
  }

  #draw() {
    this.#frame = 0;
    if (!this.#buffer) return;
    const { rows } = this.#buffer;
    this.#keepPlace();
    this.#canvas.style.setProperty("height", `${rows.length * this.#rowHeight}px`);
    if (this.#stays) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#lastTop = this.#scroller.scrollTop;
    const first = Math.max(0, Math.floor(this.#scroller.scrollTop / this.#rowHeight) - BEYOND);
    const inSight = Math.ceil(this.#scroller.clientHeight / this.#rowHeight) + 2 * BEYOND;
    this.#drawRows(rows, first, Math.min(rows.length, first + inSight));
    this.#tell();
  }

  // Rows went from the front: what one reads stays under one's eyes.
  #keepPlace() {
    const gone = this.#buffer.dropped - this.#forgotten;
    this.#forgotten = this.#buffer.dropped;
    if (gone && !this.#stays) this.#scroller.scrollTop -= gone * this.#rowHeight;
  }

  // Elements of rows that stay in sight stay too: a selection in them survives.
  #drawRows(rows, from, to) {
    const wanted = new Set(rows.slice(from, to));
    for (const [row, { shown }] of this.#drawn) {
      if (wanted.has(row)) continue;
      shown.remove();
      this.#drawn.delete(row);
    }
    let before = this.#canvas.firstChild;
    for (let index = from; index < to; index++) {
      const shown = this.#drawRow(rows[index], index);
      if (shown === before) before = before.nextSibling;
      else this.#canvas.insertBefore(shown, before);
    }
  }

  #drawRow(row, index) {
    let known = this.#drawn.get(row);
    if (!known) {
      known = { shown: element("div", { className: `log-row ${row.channel}` }), version: -1, top: -1 };
      if (row.number) known.shown.dataset.number = row.number;
      if (row.time) known.shown.dataset.time = clock(row.time);
      this.#drawn.set(row, known);
    }
    if (known.version !== row.version) {
      known.version = row.version;
      known.shown.replaceChildren(...piecesOf(row));
      this.#widen(row.text.length);
    }
    const top = index * this.#rowHeight;
    if (known.top !== top) known.shown.style.setProperty("top", `${(known.top = top)}px`);
    return known.shown;
  }

  // Rows are out of the flow: the canvas has to be told how wide the widest was, or there is no scrolling sideways.
  #widen(characters) {
    if (characters <= this.#widest) return;
    this.#widest = characters;
    this.#canvas.style.setProperty("min-width", `calc(${characters}ch + var(--log-margin))`);
  }

  #tell() {
    const { scrollTop, clientHeight } = this.#scroller;
    const below = Math.floor((scrollTop + clientHeight) / this.#rowHeight);
    this.#onPlace({ stays: this.#stays, below: Math.max(0, (this.#buffer?.rows.length ?? 0) - below) });
  }
}

// Text nodes and spans. Whatever a command wrote, it is text here.
function piecesOf({ text, runs }) {
  if (!runs) return [text];
  let start = 0;
  return runs.map(({ end, style }) => {
    const piece = text.slice(start, end);
    start = end;
    return style ? styledSpan(piece, style) : piece;
  });
}

function styledSpan(text, style) {
  const span = element("span", { className: FLAGS.filter((flag) => style[flag]).map((flag) => `ansi-${flag}`).join(" ") }, text);
  paint(span, "fg", style.color);
  paint(span, "bg", style.background);
  return span;
}

// The sixteen colours are classes, which the theme sets; the others are themselves. Inverse swaps them in the style sheet.
function paint(span, which, color) {
  if (typeof color === "number") span.classList.add(`ansi-${which}-${color}`);
  else if (color) span.style.setProperty(`--${which}`, color);
  if (color !== null) span.classList.add(`ansi-${which}`);
}
