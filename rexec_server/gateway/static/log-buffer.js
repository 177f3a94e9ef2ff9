// The lines of one log, in the order in which they began, with a bound on how much is kept in the browser.

import { AnsiWriter, Line } from "./ansi.js";

const MOST_LINES = 200_000;
const MOST_CHARACTERS = 64 * 1024 * 1024;
const LONGEST_LINE = 4096; // a longer one is shown as several rows: no browser lays out a megabyte in one
const DROP_AT_ONCE = 10_000; // moving an array for each line would cost more than the lines

/** A row: a line of one channel, or a note of the page's own (channel "note"). */
class Row extends Line {
  constructor(channel, number, time) {
    super();
    this.channel = channel;
    this.number = number;
    this.time = time;
    this.continues = false; // true: the line goes on in the channel's next row
  }
}

/** A channel has a decoder, a cursor and a style of its own: the two write into the log independently. */
class Channel {
  #decoder = new TextDecoder();
  #writer;
  #row = null;
  time = "";

  constructor(name, newRow) {
    this.#writer = new AnsiWriter(() => (this.#row = newRow(name, this.time)));
    this.name = name;
  }

  write(bytes) {
    this.#writer.write(this.#decoder.decode(bytes, { stream: true }));
  }

  /** Bytes are missing here: half a character or half a line from before them must not join what comes after. */
  interrupt() {
    this.#decoder = new TextDecoder();
    this.#writer.breakLine();
  }

  get row() {
    return this.#row;
  }
}

export class LogBuffer {
  rows = [];
  dropped = 0; // rows that were here and had to go
  #numbered = 0;
  #characters = 0;
  #channels = new Map();

  write(channelName, bytes, time = "") {
    const channel = this.#channel(channelName);
    channel.time = time;
    // Cut at line ends in pieces of bounded length: the bounds below are then checked often enough.
    for (let at = 0; at < bytes.length; at += LONGEST_LINE) {
      channel.write(bytes.subarray(at, at + LONGEST_LINE));
      this.#splitLongLine(channel);
    }
    this.#characters += bytes.length;
    this.#stayBounded();
  }

  /** Something to tell between the lines, such as a gap. */
  note(text) {
    for (const channel of this.#channels.values()) channel.interrupt();
    const row = new Row("note", null, "");
    row.put(0, text, null);
    this.rows.push(row);
  }

  /** All rows as text: the lines as they were, without styles. */
  text() {
    const parts = [];
    for (const row of this.rows) parts.push(row.text, row.continues ? "" : "\n");
    return parts.join("");
  }

  get characters() {
    return this.#characters;
  }

  #channel(name) {
    if (!this.#channels.has(name)) {
      this.#channels.set(name, new Channel(name, (channel, time) => this.#newRow(channel, time)));
    }
    return this.#channels.get(name);
  }

  #newRow(channel, time) {
    const row = new Row(channel, ++this.#numbered, time);
    this.rows.push(row);
    return row;
  }

  #splitLongLine(channel) {
    if ((channel.row?.text.length ?? 0) <= LONGEST_LINE) return;
    channel.row.continues = true;
    channel.continueInNewRow?.();
  }

  #stayBounded() {
    let excess = this.rows.length - MOST_LINES;
    if (this.#characters > MOST_CHARACTERS) excess = Math.max(excess, Math.ceil(this.rows.length / 10));
    if (excess <= 0) return;
    const gone = this.rows.splice(0, Math.min(this.rows.length, Math.max(excess, DROP_AT_ONCE)));
    for (const row of gone) this.#characters -= row.text.length;
    this.dropped += gone.length;
  }
}
