// Server-Sent Events out of a fetch() body. Not EventSource: that can send no Authorization header.

/** Text in, events out; as https://html.spec.whatwg.org/multipage/server-sent-events.html parses them. */
export class EventParser {
  #rest = "";
  #data = [];
  #type = "";
  #id = "";
  #begun = false;

  /** The events that this text completes. Comments (heartbeats) and unfinished events give none. */
  push(text) {
    if (!this.#begun && text) {
      this.#begun = true;
      if (text.startsWith("\ufeff")) text = text.slice(1);
    }
    const events = [];
    const lines = this.#wholeLines(text);
    for (const line of lines) {
      if (line !== "") this.#field(line);
      else if (this.#data.length) events.push(this.#dispatch());
      else this.#type = "";
    }
    return events;
  }

  // A line ends with \r\n, \n or \r. A \r at the very end waits: its \n may be in the next piece.
  #wholeLines(text) {
    const all = this.#rest + text;
    const held = all.endsWith("\r") ? 1 : 0;
    const lines = all.slice(0, all.length - held).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() + (held ? "\r" : "");
    return lines;
  }

  #field(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
  }

  #dispatch() {
    const event = { type: this.#type || "message", data: this.#data.join("\n"), id: this.#id };
    this.#data = [];
    this.#type = "";
    return event;
  }
}

/**
 * The events of a body, in order. `onBytes` is called for everything that arrives, heartbeats too: that is how the
 * caller knows that the connection lives. An event that the connection cut short never appears.
 */
export async function* eventsOf(body, onBytes = () => {}) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parser = new EventParser();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      onBytes(value.length);
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {}); // already broken, or already at its end: nothing to give back
  }
}
