// What a terminal would make of output, for one line at a time: colours and styles (SGR), carriage return, backspace,
// erase in line and moves within the line. Everything else that starts with ESC is taken out and not obeyed.

const MOST_PENDING = 4096; // an escape sequence longer than this is none
const TAB = 8;
const LONGEST_LINE = 4096; // a longer one goes on in a further row: no browser lays out a megabyte in one

const TOKEN = new RegExp(
  [
    "([^\\x00-\\x1f\\x7f-\\x9f]+)", // text
    "\\x1b\\[([0-?]*)[ -/]*([@-~])", // CSI: parameters and what to do
    "\\x1b\\][^\\x07\\x1b\\n]*(?:\\x07|\\x1b\\\\)", // OSC: titles, links
    "\\x1b[PX^_][^\\x1b\\n]*\\x1b\\\\", // other strings
    "\\x1b[ -/]*[0-OQ-WYZ\\\\`-~]", // two-character escapes
    "([^])",
  ].join("|"),
  "g",
);
const UNFINISHED = /\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b\n]*\x1b?|[PX^_][^\x1b\n]*\x1b?|[ -/]*)$/y;

const PLAIN = Object.freeze({
  color: null, background: null, bold: false, dim: false, italic: false,
  underline: false, strike: false, inverse: false, hidden: false,
});

const ON = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 5: null, 7: "inverse", 8: "hidden", 9: "strike", 21: "underline" };
const OFF = { 22: ["bold", "dim"], 23: ["italic"], 24: ["underline"], 27: ["inverse"], 28: ["hidden"], 29: ["strike"] };

const MOST_REMEMBERED = 10_000; // a truecolor gradient has no end; forgetting costs only time
const interned = new Map();
const steps = new Map();

// One object per style, so that runs are compared by identity and a million lines share a handful. Null: no style.
function intern(style) {
  const key = Object.values(style).join();
  if (!interned.has(key)) {
    if (interned.size > MOST_REMEMBERED) interned.clear();
    interned.set(key, key === Object.values(PLAIN).join() ? null : Object.freeze(style));
  }
  return interned.get(key);
}

// The style after "ESC [ parameters m". Output repeats the same few, so the way from one to the next is remembered.
function after(style, parameters) {
  let known = steps.get(style);
  if (!known || known.size > MOST_REMEMBERED) {
    if (steps.size > MOST_REMEMBERED) steps.clear();
    steps.set(style, (known = new Map()));
  }
  if (!known.has(parameters)) known.set(parameters, intern(styled(style ?? PLAIN, parameters)));
  return known.get(parameters);
}

/** A line of output: its text, and which styles cover it, as runs that end at a column. */
export class Line {
  text = "";
  runs = null; // null: all plain; otherwise [{end, style}], which cover the text
  version = 0; // counts changes, so that a view knows what to draw again
  continues = false; // true: too long for one row, and goes on in its channel's next one

  put(column, text, style) {
    this.version++;
    if (column > this.text.length) this.#append(" ".repeat(column - this.text.length), null);
    if (column === this.text.length) this.#append(text, style);
    else this.#overwrite(column, text, style);
  }

  erase(from, to) {
    this.version++;
    if (to >= this.text.length) {
      if (this.runs) this.runs = this.#runsBetween(0, from);
      this.text = this.text.slice(0, from);
    } else if (to > from) this.#overwrite(from, " ".repeat(to - from), null);
  }

  #append(text, style) {
    const before = this.text.length;
    this.text += text;
    if (!this.runs && !style) return;
    this.runs ??= before ? [{ end: before, style: null }] : [];
    this.#extend(this.runs, this.text.length, style);
  }

  #overwrite(column, text, style) {
    const end = column + text.length;
    if (this.runs || style) {
      const after = this.#runsBetween(end, this.text.length);
      const runs = this.#runsBetween(0, column);
      this.#extend(runs, end, style);
      for (const run of after) this.#extend(runs, run.end, run.style);
      this.runs = runs;
    }
    this.text = this.text.slice(0, column) + text + this.text.slice(end);
  }

  #extend(runs, end, style) {
    const last = runs.at(-1);
    if (last?.style === style) last.end = end;
    else runs.push({ end, style });
  }

  #runsBetween(from, to) {
    const runs = this.runs ?? [{ end: this.text.length, style: null }];
    const kept = [];
    let start = 0;
    for (const { end, style } of runs) {
      if (Math.max(start, from) < Math.min(end, to)) kept.push({ end: Math.min(end, to), style });
      start = end;
    }
    return kept;
  }
}

/** Writes text onto lines. `newLine()` gives the next one; sequences and styles may be split between writes. */
export class AnsiWriter {
  #newLine;
  #line = null;
  #column = 0;
  #style = null;
  #pending = "";

  constructor(newLine) {
    this.#newLine = newLine;
  }

  write(text) {
    const all = this.#pending + text;
    this.#pending = "";
    for (const match of all.matchAll(TOKEN)) {
      const [token, printable, parameters, final, control] = match;
      if (printable) this.#print(printable);
      else if (final) this.#sequence(parameters, final);
      else if (control === "\x1b" && this.#isUnfinished(all, match.index)) {
        this.#pending = all.slice(match.index);
        return;
      } else if (control) this.#control(token);
    }
  }

  /** What comes next begins a line of its own: output before it is missing. */
  breakLine() {
    this.#line = null;
    this.#column = 0;
    this.#pending = "";
  }

  #isUnfinished(text, index) {
    UNFINISHED.lastIndex = index;
    return text.length - index < MOST_PENDING && UNFINISHED.test(text);
  }

  #print(text) {
    this.#line ??= this.#newLine();
    for (let at = 0; at < text.length; ) {
      if (this.#column >= LONGEST_LINE) this.#goOnInNewRow();
      const piece = text.slice(at, at + LONGEST_LINE - this.#column);
      this.#line.put(this.#column, piece, this.#style);
      this.#column += piece.length;
      at += piece.length;
    }
  }

  #goOnInNewRow() {
    this.#line.continues = true;
    this.#line = this.#newLine();
    this.#column = 0;
  }

  #control(character) {
    if (character === "\n") {
      this.#line ??= this.#newLine();
      this.#line = null;
      this.#column = 0;
    } else if (character === "\r") this.#column = 0;
    else if (character === "\b") this.#column = Math.max(0, this.#column - 1);
    else if (character === "\t") this.#tab();
  }

  #tab() {
    const to = (Math.floor(this.#column / TAB) + 1) * TAB;
    const length = this.#line?.text.length ?? 0;
    if (to > length) this.#print(" ".repeat(to - this.#column));
    this.#column = to;
  }

  #sequence(parameters, final) {
    const count = Math.min(parseInt(parameters, 10) || 0, 1000);
    if (final === "m") this.#style = after(this.#style, parameters);
    else if (final === "K" && this.#line) this.#eraseInLine(count);
    else if (final === "G") this.#column = Math.max(count, 1) - 1;
    else if (final === "C") this.#column = Math.min(this.#column + Math.max(count, 1), LONGEST_LINE);
    else if (final === "D") this.#column = Math.max(0, this.#column - Math.max(count, 1));
  }

  #eraseInLine(how) {
    const length = this.#line.text.length;
    if (how === 0) this.#line.erase(Math.min(this.#column, length), length);
    else if (how === 1) this.#line.erase(0, Math.min(this.#column + 1, length));
    else if (how === 2) this.#line.erase(0, length);
  }
}

function styled(style, parameters) {
  const next = { ...style };
  // 4:3 is a curly underline and 38:2::1:2:3 a colour: sub-parameters belong to the number before them.
  const codes = parameters.split(";");
  while (codes.length) {
    const [code, ...subs] = codes.shift().split(":");
    const number = Number(code) || 0;
    if (number === 38 || number === 48 || number === 58) {
      const color = extended(subs.length ? colonColor(subs) : codes);
      if (number !== 58 && color !== undefined) next[number === 38 ? "color" : "background"] = color;
    } else apply(next, number, subs);
  }
  return next;
}

function apply(style, code, subs) {
  if (code === 0) Object.assign(style, PLAIN);
  else if (code === 4 && subs[0] === "0") style.underline = false;
  else if (ON[code]) style[ON[code]] = true;
  else if (OFF[code]) for (const name of OFF[code]) style[name] = false;
  else if (code >= 30 && code <= 37) style.color = code - 30;
  else if (code >= 40 && code <= 47) style.background = code - 40;
  else if (code >= 90 && code <= 97) style.color = code - 82;
  else if (code >= 100 && code <= 107) style.background = code - 92;
  else if (code === 39) style.color = null;
  else if (code === 49) style.background = null;
}

// 38:2::R:G:B has an empty colour space before R; 38:2:R:G:B has none.
const colonColor = (subs) => (subs[0] === "2" && subs.length > 4 ? ["2", ...subs.slice(2)] : [...subs]);

// Takes the colour off the codes: 5;N is one of 256, 2;R;G;B is that colour. Numbers below 16 follow the page's theme.
function extended(codes) {
  const kind = codes.shift();
  const byte = () => Math.max(0, Math.min(255, Number(codes.shift()) || 0));
  if (kind === "2") return `rgb(${byte()}, ${byte()}, ${byte()})`;
  if (kind !== "5") return undefined;
  const index = byte();
  return index < 16 ? index : colorOf256(index);
}

/** The colour of xterm's 6×6×6 cube (16 to 231) and grey ramp (232 to 255). */
export function colorOf256(index) {
  if (index >= 232) {
    const grey = 8 + (index - 232) * 10;
    return `rgb(${grey}, ${grey}, ${grey})`;
  }
  const level = (step) => (step === 0 ? 0 : 55 + step * 40);
  const cube = index - 16;
  return `rgb(${level(Math.floor(cube / 36))}, ${level(Math.floor(cube / 6) % 6)}, ${level(cube % 6)})`;
}
