// When the client connects again, how long it waits, and how it notices that nobody is there: rules 1 to 9
// of docs/client-behaviour.md.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { Connection } from "../../rooms/static/rooms/client/connection.js";
import { FakeSocket } from "./fake.mjs";

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

test("rule 1: offers the subprotocol and opens with the server's greeting", () => {
  assert.equal(FakeSocket.last.protocol, "rooms.v1");
  assert.equal(connection.state, "connecting");
  FakeSocket.last.connected();
  assert.equal(connection.state, "open");
});

test("rule 2: backs off from 0.2 to 20 seconds", () => {
  const delays = Array.from({ length: 9 }, () => nextDelay());
  assert.deepEqual(delays, [200, 400, 800, 1600, 3200, 6400, 12800, 20000, 20000]);
});

test("rule 2: jitter takes anything from nothing to the whole", () => {
  const eager = new Connection("ws://x/", { WebSocket: FakeSocket, random: () => 0 });
  const seen = [];
  eager.on("state", (change) => seen.push(change));
  eager.start();
  FakeSocket.last.drop();
  assert.equal(seen.at(-1).delay, 0);
});

test("rule 3: the back-off starts over after 30 seconds of being open, not sooner", () => {
  nextDelay();
  FakeSocket.last.connected();
  mock.timers.tick(29_999);
  assert.equal(nextDelay(), 400);
  FakeSocket.last.connected();
  mock.timers.tick(30_000);
  assert.equal(nextDelay(), 200);
});

// Kept in step with tests/test_reconnecting.py.
for (const code of [1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4008, 4499]) {
  test(`rule 6: comes back after ${code}`, () => {
    FakeSocket.last.drop(code);
    assert.equal(connection.state, "waiting");
  });
}

for (const code of [1000, 1002, 1007, 1009, 3000, 4500, 4503, 4510, 4999]) {
  test(`rule 6: stays away after ${code}`, () => {
    FakeSocket.last.drop(code);
    assert.equal(connection.state, "closed");
    assert.equal(states.at(-1).code, code);
  });
}

test("rule 4: waits exactly as long as the server says, and is not woken from that", () => {
  FakeSocket.last.connected();
  FakeSocket.last.push({ type: "closing", code: 4000, message: "Back soon.", retry_in: 7.5 });
  FakeSocket.last.drop(4000);
  assert.equal(states.at(-1).delay, 7500);
  connection.wake();
  mock.timers.tick(7499);
  assert.equal(FakeSocket.all.length, 1);
  mock.timers.tick(1);
  assert.equal(FakeSocket.all.length, 2);
  assert.equal(nextDelay(), 200); // and the back-off is where it was
});

test("rule 5: believes what was said before closing where the server's close code got lost", () => {
  FakeSocket.last.connected();
  FakeSocket.last.push({ type: "closing", code: 4504, message: "You are banned." });
  FakeSocket.last.drop(1006);
  assert.deepEqual(states.at(-1), { state: "closed", code: 4504, message: "You are banned." });
});

test("rule 5: says nothing after closing", () => {
  FakeSocket.last.connected();
  FakeSocket.last.push({ type: "closing", code: 4000, message: "" });
  assert.equal(connection.send({ type: "ping" }), false);
  assert.deepEqual(FakeSocket.last.sent, []);
});

test("rule 8: answers a ping", () => {
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

test("rule 7: a handshake that is not answered is given up as well", () => {
  mock.timers.tick(34_999);
  assert.equal(connection.state, "connecting");
  mock.timers.tick(1);
  assert.equal(connection.state, "waiting");
});

test("rule 7: a socket that was given up is not heard any more", () => {
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

test("rule 9: waking cuts a back-off short", () => {
  FakeSocket.last.drop();
  connection.wake();
  assert.equal(FakeSocket.all.length, 2);
});

test("rule 9: waking an open connection finds out within five seconds whether it still is one", () => {
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

test("stopping ends it for good", () => {
  FakeSocket.last.connected();
  connection.stop();
  mock.timers.tick(100_000);
  assert.equal(FakeSocket.all.length, 1);
  assert.equal(connection.state, "idle");
});
