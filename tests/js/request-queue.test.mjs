// Order, resending and retries of requests: rules 19 to 28 of docs/client-behaviour.md.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { ANN, FakeSocket, joined, makeClient, message, runMicrotasks } from "./fakes.mjs";

let client;

beforeEach(async () => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  ({ client } = makeClient());
  client.connect();
  FakeSocket.last.connected(ANN);
  await runMicrotasks();
  const joining = client.join("lobby");
  FakeSocket.last.reply("join", joined(0));
  await joining;
});

async function reconnect() {
  FakeSocket.last.drop();
  await runMicrotasks();
  mock.timers.tick(20_000);
  FakeSocket.last.connected(ANN);
  await runMicrotasks();
}

const sentTexts = () => FakeSocket.last.requests("message").map(({ data }) => data);

/** Acknowledges the newest message. */
const acknowledge = (seq = 1) => FakeSocket.last.reply("message", { seq, time: "t" });

async function rejoin(seq = 0) {
  FakeSocket.last.reply("join", joined(seq, { recovered: true }));
  await runMicrotasks();
}

test("rule 19: a message has a key and resolves with the server's reply", async () => {
  const sending = client.send("lobby", "hello");
  const [frame] = FakeSocket.last.requests("message");
  assert.equal(frame.room, "lobby");
  assert.match(frame.key, /^[\w-]{8,64}$/);
  acknowledge();
  assert.deepEqual(await sending, { seq: 1, time: "t" });
});

test("rule 20: one message per room is in flight", async () => {
  for (const text of ["one", "two", "three"]) {
    client.send("lobby", text);
  }
  client.send("help", "elsewhere");
  assert.deepEqual(sentTexts(), ["one", "elsewhere"]);
  FakeSocket.last.reply("message", { seq: 1, time: "t" }, 0);
  await runMicrotasks();
  assert.deepEqual(sentTexts(), ["one", "elsewhere", "two"]);
});

test("rule 20: at most eight requests are in flight", async () => {
  for (let number = 0; number < 20; number += 1) {
    client.send(`room ${number}`, number);
  }
  assert.equal(sentTexts().length, 8);
  FakeSocket.last.reply("message", { seq: 1, time: "t" }, 0);
  await runMicrotasks();
  assert.equal(sentTexts().length, 9);
});

test("rule 21: messages wait until their room is joined", async () => {
  const joining = client.join("help");
  client.send("help", "one");
  client.send("lobby", "two");
  assert.deepEqual(sentTexts(), ["two"]);
  FakeSocket.last.reply("join", joined(0, { room: "help" }));
  await joining;
  assert.deepEqual(sentTexts(), ["two", "one"]);
});

test("rule 22: unacknowledged messages are resent after the rejoin, in order and with the same key", async () => {
  const first = client.send("lobby", "one");
  client.send("lobby", "two");
  const [{ key }] = FakeSocket.last.requests("message");
  await reconnect();
  client.send("lobby", "three");
  assert.deepEqual(sentTexts(), []);
  await rejoin();
  assert.equal(FakeSocket.last.requests("message")[0].key, key);
  for (const seq of [1, 2, 3]) {
    acknowledge(seq);
    await runMicrotasks();
  }
  assert.deepEqual(sentTexts(), ["one", "two", "three"]);
  assert.equal((await first).seq, 1);
});

test("rule 22: acknowledged messages are not resent", async () => {
  const sending = client.send("lobby", "one");
  acknowledge();
  await sending;
  await reconnect();
  await rejoin(1);
  assert.deepEqual(sentTexts(), []);
});

test("rule 23: a temporary error keeps the place and is retried after a pause with the same key", async () => {
  const sending = client.send("lobby", "one");
  client.send("lobby", "two");
  for (const pause of [1_500, 3_000]) {
    FakeSocket.last.refuse("message", "unavailable", { retry: true });
    await runMicrotasks();
    const before = sentTexts().length;
    mock.timers.tick(pause - 1);
    assert.equal(sentTexts().length, before);
    mock.timers.tick(1);
    assert.equal(sentTexts().at(-1), "one");
    assert.equal(sentTexts().length, before + 1);
  }
  assert.equal(new Set(FakeSocket.last.requests("message").map(({ key }) => key)).size, 1);
  acknowledge();
  assert.equal((await sending).seq, 1);
  await runMicrotasks();
  assert.equal(sentTexts().at(-1), "two");
});

test("rule 23: a pause in one room does not delay another room", async () => {
  client.send("lobby", "one");
  FakeSocket.last.refuse("message", "unavailable", { retry: true });
  await runMicrotasks();
  client.send("help", "two");
  assert.deepEqual(sentTexts(), ["one", "two"]);
});

test("rule 23: a new connection ends the pause", async () => {
  client.send("lobby", "one");
  for (let attempt = 0; attempt < 5; attempt += 1) {
    FakeSocket.last.push({ type: "ping" }); // keeps the connection alive while time passes
    FakeSocket.last.refuse("message", "unavailable", { retry: true });
    await runMicrotasks();
    mock.timers.tick(attempt < 4 ? 30_000 : 0);
  }
  FakeSocket.last.drop();
  await runMicrotasks();
  mock.timers.tick(200);
  FakeSocket.last.connected(ANN);
  await runMicrotasks();
  await rejoin();
  assert.deepEqual(sentTexts(), ["one"]);
});

test("rule 23: the seventh temporary error fails the request", async () => {
  const sending = client.send("lobby", "one");
  const failed = assert.rejects(sending, { code: "unavailable" });
  for (let attempt = 0; attempt < 7; attempt += 1) {
    assert.equal(sentTexts().length, attempt + 1);
    FakeSocket.last.push({ type: "ping" }); // keeps the connection alive while time passes
    FakeSocket.last.refuse("message", "unavailable", { retry: true });
    await runMicrotasks();
    mock.timers.tick(30_000);
  }
  await failed;
});

test("rule 24: a rate-limit error pauses the queue, then one request is in flight", async () => {
  client.send("lobby", "one");
  client.send("help", "two");
  FakeSocket.last.refuse("message", "rate_limited", { retry: true, index: 0 });
  FakeSocket.last.refuse("message", "rate_limited", { retry: true, index: 1 });
  await runMicrotasks();
  client.send("third", "three");
  mock.timers.tick(22_499);
  assert.deepEqual(sentTexts(), ["one", "two"]);
  mock.timers.tick(1);
  assert.deepEqual(sentTexts(), ["one", "two", "one"]);
  acknowledge();
  await runMicrotasks();
  assert.deepEqual(sentTexts(), ["one", "two", "one", "two"]);
  mock.timers.tick(29_999);
  assert.equal(sentTexts().length, 4);
  mock.timers.tick(1);
  assert.deepEqual(sentTexts().slice(4), ["three"]);
});

test("rule 25: a permanent error fails at once, and the next request is sent", async () => {
  const sending = client.send("lobby", "one");
  client.send("lobby", "two");
  FakeSocket.last.refuse("message", "muted");
  await assert.rejects(sending, { code: "muted", retry: false });
  await runMicrotasks();
  assert.deepEqual(sentTexts(), ["one", "two"]);
});

test("rule 26: create is not repeated, because the server may have processed it", async () => {
  const creating = client.request("create", { room: "new" });
  const failed = assert.rejects(creating, { code: "disconnected" });
  await reconnect();
  await failed;
  await rejoin();
  assert.deepEqual(FakeSocket.last.requests("create"), []);
});

test("rule 26: read requests are repeated", async () => {
  client.request("history", { room: "lobby" });
  await reconnect();
  await rejoin();
  assert.equal(FakeSocket.last.requests("history").length, 1);
});

test("rule 26: unsent requests wait for the next connection", async () => {
  FakeSocket.last.push({ type: "closing", code: 4000, message: "", retry_in: 1 });
  client.request("create", { room: "new" });
  await runMicrotasks();
  await reconnect();
  await rejoin();
  assert.equal(FakeSocket.last.requests("create").length, 1);
});

test("rule 26: a volatile message is sent at once or fails", async () => {
  client.send("lobby", "one");
  const typing = client.send("lobby", "typing", { volatile: true });
  const failed = assert.rejects(typing, { code: "disconnected" });
  assert.deepEqual(sentTexts(), ["one", "typing"]);
  FakeSocket.last.drop();
  await failed;
  await assert.rejects(client.send("lobby", "typing", { volatile: true }), { code: "disconnected" });
  mock.timers.tick(20_000);
  FakeSocket.last.connected(ANN);
  await runMicrotasks();
  await assert.rejects(client.send("lobby", "typing", { volatile: true }), { code: "disconnected" });
  await rejoin();
  assert.deepEqual(sentTexts(), ["one"]);
});

test("rule 5: requests after closing are sent on the next connection", async () => {
  FakeSocket.last.push({ type: "closing", code: 4000, message: "", retry_in: 1 });
  client.send("lobby", "late");
  await runMicrotasks();
  assert.deepEqual(sentTexts(), []);
  await reconnect();
  await rejoin();
  assert.deepEqual(sentTexts(), ["late"]);
});

test("rule 27: the queue holds 1000 requests, and one more fails", async () => {
  FakeSocket.last.drop();
  const sending = Array.from({ length: 1_000 }, (_, number) => client.send("lobby", number));
  await assert.rejects(client.send("lobby", "late"), { code: "queue_full", retry: true });
  mock.timers.tick(20_000);
  FakeSocket.last.connected(ANN);
  await runMicrotasks();
  await rejoin(); // the room is joined again although the queue is full
  acknowledge(1);
  assert.equal((await sending[0]).seq, 1);
});

test("rule 28: onReply is called before later frames are emitted", async () => {
  const seen = [];
  client.on("message", ({ seq }) => seen.push(seq));
  client.send("lobby", "x", { onReply: ({ seq }) => seen.push(`reply ${seq}`) });
  const { id } = FakeSocket.last.requests("message")[0];
  const reply = { type: "reply", id, data: { seq: 1, time: "" } };
  FakeSocket.last.push(reply, message(1));
  assert.deepEqual(seen, ["reply 1", 1]);
});
