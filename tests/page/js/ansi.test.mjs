// What output becomes: the lines, and how they are styled.

import assert from "node:assert/strict";
import test from "node:test";

import { colorOf256 } from "../../../rexec_server/gateway/static/ansi.js";
import { LogBuffer } from "../../../rexec_server/gateway/static/log-buffer.js";

const encode = (text) => new TextEncoder().encode(text);

function lines(...pieces) {
  const buffer = new LogBuffer();
  for (const piece of pieces) buffer.write("stdout", typeof piece === "string" ? encode(piece) : piece);
  return buffer.rows;
}

const texts = (...pieces) => lines(...pieces).map((row) => row.text);

/** The runs of one line: what is set, and the text under it. */
function runs(...pieces) {
  const [{ text, runs: found }] = lines(...pieces);
  let start = 0;
  return (found ?? [{ end: text.length, style: null }]).map(({ end, style }) => {
    const on = Object.entries(style ?? {}).filter(([, value]) => value !== false && value !== null);
    const piece = [text.slice(start, end), Object.fromEntries(on)];
    start = end;
    return piece;
  });
}

test("lines end with a line feed, with or without a carriage return", () => {
  assert.deepEqual(texts("a\r\nb\n\nc"), ["a", "b", "", "c"]);
});

test("a carriage return writes over the line, as progress bars do", () => {
  assert.deepEqual(texts("10%\r20%\r", "100%\ndone\n"), ["100%", "done"]);
});

test("what is shorter than what stood there leaves the rest, unless it is erased", () => {
  assert.deepEqual(texts("working\rdone\n"), ["doneing"]);
  assert.deepEqual(texts("working\rdone\x1b[K\n"), ["done"]);
  assert.deepEqual(texts("working\x1b[2K\rok\n"), ["ok"]);
  assert.deepEqual(texts("abc\x1b[2D\x1b[1Kd"), [" dc"]);
});

test("a backspace goes one back, a tab to the next stop, and columns can be addressed", () => {
  assert.deepEqual(texts("abc\b\bX"), ["aXc"]);
  assert.deepEqual(texts("a\tb"), ["a       b"]);
  assert.deepEqual(texts("abc\x1b[1GX\x1b[2CY"), ["XbcY"]);
});

test("the sixteen colours, and back to none", () => {
  assert.deepEqual(runs("a\x1b[31mb\x1b[0mc\x1b[92md\x1b[39me"), [
    ["a", {}], ["b", { color: 1 }], ["c", {}], ["d", { color: 10 }], ["e", {}],
  ]);
  assert.deepEqual(runs("\x1b[44;97mx"), [["x", { color: 15, background: 4 }]]);
});

test("256 colours and true colours, with semicolons and with colons", () => {
  assert.deepEqual(runs("\x1b[38;5;208mx"), [["x", { color: colorOf256(208) }]]);
  assert.deepEqual(runs("\x1b[38;5;3mx"), [["x", { color: 3 }]]);
  assert.deepEqual(runs("\x1b[48;2;1;2;300mx"), [["x", { background: "rgb(1, 2, 255)" }]]);
  assert.deepEqual(runs("\x1b[38:2::1:2:3mx"), [["x", { color: "rgb(1, 2, 3)" }]]);
  assert.deepEqual(runs("\x1b[38:2:1:2:3;1mx"), [["x", { color: "rgb(1, 2, 3)", bold: true }]]);
  assert.equal(colorOf256(16), "rgb(0, 0, 0)");
  assert.equal(colorOf256(208), "rgb(255, 135, 0)");
  assert.equal(colorOf256(231), "rgb(255, 255, 255)");
  assert.equal(colorOf256(255), "rgb(238, 238, 238)");
});

test("bold, dim, italic, underline, inverse and strike go on and off", () => {
  assert.deepEqual(runs("\x1b[1;3;4mx\x1b[22my\x1b[mz"), [
    ["x", { bold: true, italic: true, underline: true }], ["y", { italic: true, underline: true }], ["z", {}],
  ]);
  assert.deepEqual(runs("\x1b[2;7;9mx\x1b[27;29my"), [["x", { dim: true, inverse: true, strike: true }], ["y", { dim: true }]]);
  assert.deepEqual(runs("\x1b[4:3mx\x1b[4:0my"), [["x", { underline: true }], ["y", {}]]);
});

test("writing over a coloured line keeps the colours of what stays", () => {
  assert.deepEqual(runs("\x1b[31mabcdef\x1b[0m\rXY\x1b[32mZ"), [["XY", {}], ["Z", { color: 2 }], ["def", { color: 1 }]]);
});

test("every sequence may be cut anywhere, and so may a character", () => {
  const whole = "\x1b[1;38;2;10;20;30mäöü€😀\x1b[0m end\x1b]0;title\x1b\\!\r\n\x1b[Knext";
  const bytes = encode(whole);
  const expected = lines(whole).map(({ text, runs: found }) => ({ text, found }));
  for (let cut = 1; cut < bytes.length; cut++) {
    const found = lines(bytes.subarray(0, cut), bytes.subarray(cut)).map(({ text, runs: r }) => ({ text, found: r }));
    assert.deepEqual(found, expected, `cut at ${cut}`);
  }
});

test("titles, links, cursor moves and unknown sequences are taken out; their text stays", () => {
  assert.deepEqual(texts("\x1b]0;evil\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\x1b[2J\x1b[?25l\x1b(Bb\x07"), ["alinkb"]);
});

test("a sequence that never ends holds nothing up", () => {
  assert.deepEqual(texts("a\x1b]0;no end\nb\n").length, 2);
  assert.equal(texts(`\x1b]${"x".repeat(5000)}`, "y").join("").endsWith("y"), true);
  assert.deepEqual(texts("\x1b[31\nred"), ["[31", "red"]);
});

test("invalid UTF-8 becomes a replacement character and hurts nothing around it", () => {
  assert.deepEqual(texts(new Uint8Array([97, 0xff, 98, 10, 99])), ["a\ufffdb", "c"]);
});

test("markup is text like any other", () => {
  assert.deepEqual(texts("<script>alert(1)</script>\n"), ["<script>alert(1)</script>"]);
});

test("a very long line is several rows, and one line when copied", () => {
  const buffer = new LogBuffer();
  buffer.write("stdout", encode(`${"x".repeat(10_000)}\nnext\n`));
  assert.equal(buffer.rows.length, 4);
  assert.equal(buffer.text(), `${"x".repeat(10_000)}\nnext\n`);
});

test("the channels do not disturb each other in the middle of a line", () => {
  const buffer = new LogBuffer();
  buffer.write("stdout", encode("half \x1b[3"));
  buffer.write("stderr", encode("error\n"));
  buffer.write("stdout", encode("1mred\n"));
  assert.deepEqual(buffer.rows.map((row) => [row.channel, row.text]), [["stdout", "half red"], ["stderr", "error"]]);
});

test("after a gap nothing is joined with what came before it", () => {
  const buffer = new LogBuffer();
  buffer.write("stdout", encode("before\x1b[3"));
  buffer.note("gap");
  buffer.write("stdout", encode("after\n"));
  assert.deepEqual(buffer.rows.map((row) => row.text), ["before", "gap", "after"]);
});

test("however much comes, what is kept is bounded, and what went is counted", () => {
  const buffer = new LogBuffer();
  for (let round = 0; round < 60; round++) buffer.write("stdout", encode("x\n".repeat(10_000)));
  assert.ok(buffer.rows.length <= 200_000);
  assert.equal(buffer.rows.length + buffer.dropped, 600_000);
  assert.equal(buffer.rows.at(-1).number, 600_000);
});

test("a progress bar that goes on for ever costs one line", () => {
  const buffer = new LogBuffer();
  buffer.write("stdout", encode("kept\n"));
  const bar = encode(`\r[${"#".repeat(60)}] 50%`.repeat(20_000));
  for (let round = 0; round < 60; round++) buffer.write("stdout", bar);
  assert.deepEqual([buffer.rows.length, buffer.dropped], [2, 0]);
});
