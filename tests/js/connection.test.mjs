// Reconnecting, back-off and detection of a dead connection: rules 1 to 9 of docs/client-behaviour.md.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { Connection } from "../../rooms/static/rooms/client/connection.js";
import { FakeSocket } from "./fakes.mjs";

let connection;
let states;

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  FakeSocket.all = [];
  connection = new Connection("ws://x/", { WebSocket: FakeSocket, random: () => 1 });
  states = [];
  connection.on("state", (change) => states.push(change));
  connection.start();
});

function nextDelay(code = 1006) {
  FakeSocket.last.drop(code);
  const { delay } = states.at(-1);
  mock.timers.tick(delay);
  return delay;
}

test("rule 1: offers the subprotocol and opens with the connected frame", () => {
  assert.equal(FakeSocket.last.protocol, "rooms.v1");
  assert.equal(connection.state, "connecting");
  FakeSocket.last.connected();
  assert.equal(connection.state, "open");
});

test("rule 2: backs off from 0.2 to 20 seconds", () => {
  const delays = Array.from({ length: 9 }, () => nextDelay());
  assert.deepEqual(delays, [200, 400, 800, 1600, 3200, 6400, 12800, 20000, 20000]);
});

test("rule 2: the jitter includes a delay of zero", () => {
  const eager = new Connection("ws://x/", { WebSocket: FakeSocket, random: () => 0 });
  const seen = [];
  eager.on("state", (change) => seen.push(change));
  eager.start();
  FakeSocket.last.drop();
  assert.equal(seen.at(-1).delay, 0);
});

test("rule 3: the back-off is reset after 30 seconds open, not earlier", () => {
  nextDelay();
  FakeSocket.last.connected();
  mock.timers.tick(29_999);
  assert.equal(nextDelay(), 400);
  FakeSocket.last.connected();
  mock.timers.tick(30_000);
  assert.equal(nextDelay(), 200);
});

// The same codes as in tests/test_reconnecting.py.
for (const code of [1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4008, 4499]) {
  test(`rule 6: reconnects after ${code}`, () => {
    FakeSocket.last.drop(code);
    assert.equal(connection.state, "waiting");
  });
}

for (const code of [1000, 1002, 1007, 1009, 3000, 4500, 4503, 4510, 4999]) {
  test(`rule 6: does not reconnect after ${code}`, () => {
    FakeSocket.last.drop(code);
    assert.equal(connection.state, "closed");
    assert.equal(states.at(-1).code, code);
  });
}

test("rule 4: waits exactly retry_in seconds, and wake does not shorten that", () => {
  FakeSocket.last.connected();
  FakeSocket.last.push({ type: "closing", code: 4000, message: "Back soon.", retry_in: 7.5 });
  FakeSocket.last.drop(4000);
  assert.equal(states.at(-1).delay, 7500);
  connection.wake();
  mock.timers.tick(7499);
  assert.equal(FakeSocket.all.length, 1);
  mock.timers.tick(1);
  assert.equal(FakeSocket.all.length, 2);
  assert.equal(nextDelay(), 200); // the back-off is unchanged
});

test("rule 5: the code of the closing frame applies if the close code is below 4000", () => {
  FakeSocket.last.connected();
  FakeSocket.last.push({ type: "closing", code: 4504, message: "You are banned." });
  FakeSocket.last.drop(1006);
  assert.deepEqual(states.at(-1), { state: "closed", code: 4504, message: "You are banned." });
});

test("rule 5: sends nothing after closing", () => {
  FakeSocket.last.connected();
  FakeSocket.last.push({ type: "closing", code: 4000, message: "" });
  assert.equal(connection.send({ type: "ping" }), false);
  assert.deepEqual(FakeSocket.last.sent, []);
});

test("rule 8: answers ping with pong", () => {
  FakeSocket.last.connected();
  FakeSocket.last.push({ type: "ping" });
  assert.deepEqual(FakeSocket.last.sent, [{ type: "pong" }]);
});

test("rule 7: reconnects after the ping interval and ten seconds of silence", () => {
  const first = FakeSocket.last;
  first.connected();
  mock.timers.tick(34_999);
  first.push({ type: "ping" });
  mock.timers.tick(34_999);
  assert.equal(connection.state, "open");
  mock.timers.tick(1);
  assert.equal(connection.state, "waiting");
  assert.equal(first.closedWith, 1000);
  mock.timers.tick(20_000);
  assert.equal(FakeSocket.all.length, 2);
});

test("rule 7: reconnects after a handshake without an answer", () => {
  mock.timers.tick(34_999);
  assert.equal(connection.state, "connecting");
  mock.timers.tick(1);
  assert.equal(connection.state, "waiting");
});

test("rule 7: events of a discarded socket are ignored", () => {
  const first = FakeSocket.last;
  first.connected();
  connection.retry();
  mock.timers.tick(200);
  const frames = [];
  connection.on("frame", (frame) => frames.push(frame));
  first.push({ type: "joined" });
  first.drop(4500);
  assert.deepEqual(frames, []);
  assert.equal(connection.state, "connecting");
});

test("rule 9: wake ends a back-off", () => {
  FakeSocket.last.drop();
  connection.wake();
  assert.equal(FakeSocket.all.length, 2);
});

test("rule 9: wake checks an open connection within five seconds", () => {
  FakeSocket.last.connected();
  connection.wake();
  assert.deepEqual(FakeSocket.last.sent, [{ type: "ping" }]);
  mock.timers.tick(4_999);
  FakeSocket.last.push({ type: "pong" });
  mock.timers.tick(5_000);
  assert.equal(connection.state, "open");
  connection.wake();
  mock.timers.tick(5_000);
  assert.equal(connection.state, "waiting");
});

test("stop prevents further attempts", () => {
  FakeSocket.last.connected();
  connection.stop();
  mock.timers.tick(100_000);
  assert.equal(FakeSocket.all.length, 1);
  assert.equal(connection.state, "idle");
});
