// Requests that wait for their turn: sent again, in order, and only where that is harmless. Rules 19 to 28
// of docs/client-behaviour.md.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { ANN, FakeSocket, joined, makeClient, message, settle } from "./fake.mjs";

let client;

beforeEach(async () => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  ({ client } = makeClient());
  client.connect();
  FakeSocket.last.connected(ANN);
  await settle();
  const joining = client.join("lobby");
  FakeSocket.last.reply("join", joined(0));
  await joining;
});

async function reconnect() {
  FakeSocket.last.drop();
  await settle();
  mock.timers.tick(20_000);
  FakeSocket.last.connected(ANN);
  await settle();
}

const said = () => FakeSocket.last.asked("message").map(({ data }) => data);

/** Answers the newest message. */
const acknowledge = (seq = 1) => FakeSocket.last.reply("message", { seq, time: "t" });

async function rejoin(seq = 0) {
  FakeSocket.last.reply("join", joined(seq, { recovered: true }));
  await settle();
}

test("rule 19: a message has a key and resolves with the server's answer", async () => {
  const sending = client.send("lobby", "hello");
  const [frame] = FakeSocket.last.asked("message");
  assert.equal(frame.room, "lobby");
  assert.match(frame.key, /^[\w-]{8,64}$/);
  acknowledge();
  assert.deepEqual(await sending, { seq: 1, time: "t" });
});

test("rule 20: in a room one message is on its way at a time", async () => {
  for (const text of ["one", "two", "three"]) {
    client.send("lobby", text);
  }
  client.send("help", "elsewhere");
  assert.deepEqual(said(), ["one", "elsewhere"]);
  FakeSocket.last.reply("message", { seq: 1, time: "t" }, 0);
  await settle();
  assert.deepEqual(said(), ["one", "elsewhere", "two"]);
});

test("rule 20: in all rooms together only a few are on their way", async () => {
  for (let number = 0; number < 20; number += 1) {
    client.send(`room ${number}`, number);
  }
  assert.equal(said().length, 8);
  FakeSocket.last.reply("message", { seq: 1, time: "t" }, 0);
  await settle();
  assert.equal(said().length, 9);
});

test("rule 21: what is said in a room waits until the room is joined", async () => {
  const joining = client.join("help");
  client.send("help", "one");
  client.send("lobby", "two");
  assert.deepEqual(said(), ["two"]);
  FakeSocket.last.reply("join", joined(0, { room: "help" }));
  await joining;
  assert.deepEqual(said(), ["two", "one"]);
});

test("rule 22: what was not acknowledged is sent again with the same key and in order, in the room again", async () => {
  const first = client.send("lobby", "one");
  client.send("lobby", "two");
  const [{ key }] = FakeSocket.last.asked("message");
  await reconnect();
  client.send("lobby", "three");
  assert.deepEqual(said(), []);
  await rejoin();
  assert.equal(FakeSocket.last.asked("message")[0].key, key);
  for (const seq of [1, 2, 3]) {
    acknowledge(seq);
    await settle();
  }
  assert.deepEqual(said(), ["one", "two", "three"]);
  assert.equal((await first).seq, 1);
});

test("rule 22: what was acknowledged is not sent again", async () => {
  const sending = client.send("lobby", "one");
  acknowledge();
  await sending;
  await reconnect();
  await rejoin(1);
  assert.deepEqual(said(), []);
});

test("rule 23: a refusal for now keeps its place, and is repeated after a pause with the same key", async () => {
  const sending = client.send("lobby", "one");
  client.send("lobby", "two");
  for (const pause of [1_500, 3_000]) {
    FakeSocket.last.refuse("message", "unavailable", { retry: true });
    await settle();
    const before = said().length;
    mock.timers.tick(pause - 1);
    assert.equal(said().length, before);
    mock.timers.tick(1);
    assert.equal(said().at(-1), "one");
    assert.equal(said().length, before + 1);
  }
  assert.equal(new Set(FakeSocket.last.asked("message").map(({ key }) => key)).size, 1);
  acknowledge();
  assert.equal((await sending).seq, 1);
  await settle();
  assert.equal(said().at(-1), "two");
});

test("rule 23: a room that pauses does not hold up another one", async () => {
  client.send("lobby", "one");
  FakeSocket.last.refuse("message", "unavailable", { retry: true });
  await settle();
  client.send("help", "two");
  assert.deepEqual(said(), ["one", "two"]);
});

test("rule 23: a new connection ends the pause", async () => {
  client.send("lobby", "one");
  for (let attempt = 0; attempt < 5; attempt += 1) {
    FakeSocket.last.push({ type: "ping" }); // keeps the connection alive while time passes
    FakeSocket.last.refuse("message", "unavailable", { retry: true });
    await settle();
    mock.timers.tick(attempt < 4 ? 30_000 : 0);
  }
  FakeSocket.last.drop();
  await settle();
  mock.timers.tick(200);
  FakeSocket.last.connected(ANN);
  await settle();
  await rejoin();
  assert.deepEqual(said(), ["one"]);
});

test("rule 23: patience ends", async () => {
  const sending = client.send("lobby", "one");
  const failed = assert.rejects(sending, { code: "unavailable" });
  for (let attempt = 0; attempt < 7; attempt += 1) {
    assert.equal(said().length, attempt + 1);
    FakeSocket.last.push({ type: "ping" }); // keeps the connection alive while time passes
    FakeSocket.last.refuse("message", "unavailable", { retry: true });
    await settle();
    mock.timers.tick(30_000);
  }
  await failed;
});

test("rule 24: who is too fast is silent for a while and then says one thing at a time", async () => {
  client.send("lobby", "one");
  client.send("help", "two");
  FakeSocket.last.refuse("message", "rate_limited", { retry: true, index: 0 });
  FakeSocket.last.refuse("message", "rate_limited", { retry: true, index: 1 });
  await settle();
  client.send("third", "three");
  mock.timers.tick(22_499);
  assert.deepEqual(said(), ["one", "two"]);
  mock.timers.tick(1);
  assert.deepEqual(said(), ["one", "two", "one"]);
  acknowledge();
  await settle();
  assert.deepEqual(said(), ["one", "two", "one", "two"]);
  mock.timers.tick(29_999);
  assert.equal(said().length, 4);
  mock.timers.tick(1);
  assert.deepEqual(said().slice(4), ["three"]);
});

test("rule 25: a refusal for good fails at once, and the next one goes on", async () => {
  const sending = client.send("lobby", "one");
  client.send("lobby", "two");
  FakeSocket.last.refuse("message", "muted");
  await assert.rejects(sending, { code: "muted", retry: false });
  await settle();
  assert.deepEqual(said(), ["one", "two"]);
});

test("rule 26: making a room is not repeated, because it may have happened", async () => {
  const making = client.request("create", { room: "new" });
  const failed = assert.rejects(making, { code: "disconnected" });
  await reconnect();
  await failed;
  await rejoin();
  assert.deepEqual(FakeSocket.last.asked("create"), []);
});

test("rule 26: what only reads is repeated", async () => {
  client.request("history", { room: "lobby" });
  await reconnect();
  await rejoin();
  assert.equal(FakeSocket.last.asked("history").length, 1);
});

test("rule 26: what was never sent waits for the next connection", async () => {
  FakeSocket.last.push({ type: "closing", code: 4000, message: "", retry_in: 1 });
  client.request("create", { room: "new" });
  await settle();
  await reconnect();
  await rejoin();
  assert.equal(FakeSocket.last.asked("create").length, 1);
});

test("rule 26: what is volatile goes at once or not at all", async () => {
  client.send("lobby", "one");
  const typing = client.send("lobby", "typing", { volatile: true });
  const failed = assert.rejects(typing, { code: "disconnected" });
  assert.deepEqual(said(), ["one", "typing"]);
  FakeSocket.last.drop();
  await failed;
  await assert.rejects(client.send("lobby", "typing", { volatile: true }), { code: "disconnected" });
  mock.timers.tick(20_000);
  FakeSocket.last.connected(ANN);
  await settle();
  await assert.rejects(client.send("lobby", "typing", { volatile: true }), { code: "disconnected" });
  await rejoin();
  assert.deepEqual(said(), ["one"]);
});

test("rule 5: nothing is sent after closing, and all of it on the next connection", async () => {
  FakeSocket.last.push({ type: "closing", code: 4000, message: "", retry_in: 1 });
  client.send("lobby", "late");
  await settle();
  assert.deepEqual(said(), []);
  await reconnect();
  await rejoin();
  assert.deepEqual(said(), ["late"]);
});

test("rule 27: a thousand wait, and one more fails", async () => {
  FakeSocket.last.drop();
  const sending = Array.from({ length: 1_000 }, (_, number) => client.send("lobby", number));
  await assert.rejects(client.send("lobby", "late"), { code: "queue_full", retry: true });
  mock.timers.tick(20_000);
  FakeSocket.last.connected(ANN);
  await settle();
  await rejoin(); // the room is joined again although the queue is full
  acknowledge(1);
  assert.equal((await sending[0]).seq, 1);
});

test("rule 28: the answer is handed on before what the server sent after it", async () => {
  const seen = [];
  client.on("message", ({ seq }) => seen.push(seq));
  client.send("lobby", "x", { onReply: ({ seq }) => seen.push(`answer ${seq}`) });
  const { id } = FakeSocket.last.asked("message")[0];
  const reply = { type: "reply", id, data: { seq: 1, time: "" } };
  FakeSocket.last.push(reply, message(1));
  assert.deepEqual(seen, ["answer 1", 1]);
});
