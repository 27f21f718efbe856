// Parsing of a line of input.

import assert from "node:assert/strict";
import { test } from "node:test";

import { parse } from "../../rooms/static/rooms/chat/command.js";

const lines = [
  ["hello", "message", { text: "hello" }],
  ["/", "message", { text: "/" }],
  ["/ start", "message", { text: "/ start" }],
  ["// comment", "message", { text: "// comment" }],
  ["/start", "start", null],
  ["/start  ", "start", null],
  ["/bid 7", "bid", 7],
  ["/bid -1.5", "bid", -1.5],
  ["/ready true", "ready", true],
  ["/clear null", "clear", null],
  ['/move {"x": 1, "y": [2]}', "move", { x: 1, y: [2] }],
  ['/answer "7"', "answer", "7"],
  ["/answer Canberra", "answer", "Canberra"],
  ["/answer  two words\nand a line", "answer", "two words\nand a line"],
  ["/answer 007", "answer", "007"],
  ["/answer 12345678901234567890", "answer", "12345678901234567890"],
  ["/answer 1e999", "answer", "1e999"],
];

for (const [line, event, data] of lines) {
  test(`parses ${JSON.stringify(line)}`, () => assert.deepEqual(parse(line), { event, data }));
}
