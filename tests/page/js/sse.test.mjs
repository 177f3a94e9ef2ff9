// Server-Sent Events: the same events, however the bytes are cut.

import assert from "node:assert/strict";
import test from "node:test";

import { EventParser, eventsOf } from "../../../rexec_server/gateway/static/sse.js";

const STREAM =
  'retry: 1000\n\n: heartbeat\n\nid: 5\nevent: output\ndata: {"a":\ndata: "ü"}\n\nid: 9\r\nevent: end\r\ndata:x\r\n\r\n';
const EVENTS = [
  { type: "output", data: '{"a":\n"ü"}', id: "5" },
  { type: "end", data: "x", id: "9" },
];

function body(bytes, size) {
  return new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.subarray(at, at + size));
      controller.close();
    },
  });
}

test("the same events, however the stream is cut", async () => {
  const bytes = new TextEncoder().encode(STREAM);
  for (const size of [1, 2, 3, 7, 1000]) {
    const found = [];
    for await (const event of eventsOf(body(bytes, size))) found.push(event);
    assert.deepEqual(found, EVENTS, `pieces of ${size}`);
  }
});

test("an event that is cut off by the end never appears", () => {
  const parser = new EventParser();
  assert.deepEqual(parser.push("id: 3\nevent: output\ndata: half"), []);
  assert.deepEqual(parser.push("\n"), []);
  assert.deepEqual(parser.push("\n"), [{ type: "output", data: "half", id: "3" }]);
});

test("comments and events without data give nothing, and leave no name behind", () => {
  const parser = new EventParser();
  assert.deepEqual(parser.push(": ping\n\nevent: gone\n\ndata: x\n\n"), [{ type: "message", data: "x", id: "" }]);
});

test("everything that arrives counts as a sign of life, heartbeats too", async () => {
  let heard = 0;
  const bytes = new TextEncoder().encode(": heartbeat\n\n");
  for await (const _ of eventsOf(body(bytes, 4), (count) => (heard += count)));
  assert.equal(heard, bytes.length);
});
