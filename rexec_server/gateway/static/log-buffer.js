// The lines of one log, in the order in which they began, with a bound on how much of it the browser keeps.

import { AnsiWriter, Line } from "./ansi.js";
import { count } from "./format.js";

const MOST_LINES = 200_000;
const MOST_CHARACTERS = 64 * 1024 * 1024;
const DROP_AT_ONCE = 10_000; // moving an array for each line would cost more than the lines
const PIECE = 64 * 1024; // the bounds are checked after each

/** A row: a line of one channel, or a note of the page's own (channel "note"). */
class Row extends Line {
  constructor(channel, number, time) {
    super();
    this.channel = channel;
    this.number = number;
    this.time = time;
  }
}

/** A channel has a decoder, a cursor and a style of its own: the two write into the log independently. */
class Channel {
  #decoder = new TextDecoder();
  #writer;
  #time = "";

  constructor(name, newRow) {
    this.#writer = new AnsiWriter(() => newRow(name, this.#time));
  }

  write(bytes, time) {
    this.#time = time;
    this.#writer.write(this.#decoder.decode(bytes, { stream: true }));
  }

  /** Bytes are missing here: half a character or half a line from before them must not join what comes after. */
  interrupt() {
    this.#decoder = new TextDecoder();
    this.#writer.breakLine();
  }
}

export class LogBuffer {
  rows = [];
  dropped = 0; // rows that were here and had to go
  lines = 0; // that came, whether they are still here or not
  #numbers = true; // until output is missing: from there on nobody knows which line it is
  #characters = 0;
  #channels = new Map();

  write(channelName, bytes, time = "") {
    const channel = this.#channel(channelName);
    for (let at = 0; at < bytes.length; at += PIECE) {
      const piece = bytes.subarray(at, at + PIECE);
      channel.write(piece, time);
      this.#characters += piece.length;
      this.#stayBounded();
    }
  }

  /** Tells, between the lines, that output is missing here. */
  note(text) {
    this.#numbers = false;
    for (const channel of this.#channels.values()) channel.interrupt();
    const row = new Row("note", null, "");
    row.put(0, text, null);
    this.rows.push(row);
  }

  /** All rows as text: the lines as they were, without styles; what is not among them any more is told first. */
  text() {
    const parts = this.dropped ? [`[${count(this.dropped)} older lines are not here]\n`] : [];
    for (const row of this.rows) parts.push(row.text, row.continues ? "" : "\n");
    return parts.join("");
  }

  #channel(name) {
    if (!this.#channels.has(name)) {
      this.#channels.set(name, new Channel(name, (channel, time) => this.#newRow(channel, time)));
    }
    return this.#channels.get(name);
  }

  #newRow(channel, time) {
    this.lines++;
    const row = new Row(channel, this.#numbers ? this.lines : null, time);
    this.rows.push(row);
    return row;
  }

  #stayBounded() {
    if (this.rows.length > MOST_LINES) this.#drop(Math.max(this.rows.length - MOST_LINES, DROP_AT_ONCE));
    if (this.#characters <= MOST_CHARACTERS) return;
    // Progress bars write far more than they leave: only what the rows really hold counts.
    this.#characters = this.rows.reduce((sum, row) => sum + row.text.length, 0);
    if (this.#characters > MOST_CHARACTERS) this.#drop(Math.ceil(this.rows.length / 4));
  }

  #drop(count) {
    const gone = this.rows.splice(0, count);
    for (const row of gone) this.#characters -= row.text.length;
    this.dropped += gone.length;
  }
}
