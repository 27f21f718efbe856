// Requests that wait for their turn: sent again, in order, and only where that is harmless.

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

test("a message has a key and resolves with the server's answer", async () => {
  const sending = client.send("lobby", "hello");
  const [frame] = FakeSocket.last.asked("message");
  assert.equal(frame.room, "lobby");
  assert.match(frame.key, /^[\w-]{8,64}$/);
  FakeSocket.last.reply("message", { seq: 1, time: "t" });
  assert.deepEqual(await sending, { seq: 1, time: "t" });
});

test("what was not acknowledged is sent again with the same key, after the room is joined again", async () => {
  const first = client.send("lobby", "one");
  client.send("lobby", "two");
  const [{ key }] = FakeSocket.last.asked("message");
  await reconnect();
  client.send("lobby", "three");
  assert.deepEqual(said(), []);
  FakeSocket.last.reply("join", joined(0, { recovered: true }));
  await settle();
  assert.deepEqual(said(), ["one", "two", "three"]);
  assert.equal(FakeSocket.last.asked("message")[0].key, key);
  FakeSocket.last.reply("message", { seq: 1, time: "t" }, 0);
  assert.equal((await first).seq, 1);
});

test("the answer is handed on before what the server sent after it", async () => {
  const seen = [];
  client.on("message", ({ seq }) => seen.push(seq));
  client.send("lobby", "x", { onReply: ({ seq }) => seen.push(`answer ${seq}`) });
  const { id } = FakeSocket.last.asked("message")[0];
  const reply = { type: "reply", id, data: { seq: 1, time: "" } };
  FakeSocket.last.push(reply, message(1));
  assert.deepEqual(seen, ["answer 1", 1]);
});

test("what was acknowledged is not sent again", async () => {
  const sending = client.send("lobby", "one");
  FakeSocket.last.reply("message", { seq: 1, time: "t" });
  await sending;
  await reconnect();
  FakeSocket.last.reply("join", joined(1, { recovered: true }));
  await settle();
  assert.deepEqual(said(), []);
});

test("a refusal for now is repeated in order after a pause", async () => {
  const sending = ["one", "two", "three"].map((text) => client.send("lobby", text));
  FakeSocket.last.reply("message", { seq: 1, time: "t" }, 0);
  FakeSocket.last.refuse("message", "rate_limited", { retry: true, index: 1 });
  FakeSocket.last.refuse("message", "rate_limited", { retry: true, index: 2 });
  await settle();
  client.send("lobby", "four");
  assert.deepEqual(said(), ["one", "two", "three"]);
  mock.timers.tick(1_500);
  assert.deepEqual(said().slice(3), ["two", "three", "four"]);
  FakeSocket.last.reply("message", { seq: 2, time: "t" }, 3);
  assert.equal((await sending[1]).seq, 2);
});

test("a refusal for good fails at once", async () => {
  const sending = client.send("lobby", "one");
  FakeSocket.last.refuse("message", "muted");
  await assert.rejects(sending, { code: "muted", retry: false });
});

test("patience ends", async () => {
  const sending = client.send("lobby", "one");
  const failed = assert.rejects(sending, { code: "unavailable" });
  for (let attempt = 0; attempt < 7; attempt += 1) {
    FakeSocket.last.push({ type: "ping" }); // keeps the connection alive while time passes
    FakeSocket.last.refuse("message", "unavailable", { retry: true });
    await settle();
    mock.timers.tick(30_000);
  }
  await failed;
});

test("only a few are in flight at a time", async () => {
  for (let number = 0; number < 20; number += 1) {
    client.send("lobby", number);
  }
  assert.equal(said().length, 8);
  FakeSocket.last.reply("message", { seq: 1, time: "t" }, 0);
  await settle();
  assert.equal(said().length, 9);
});

test("making a room is not repeated, because it may have happened", async () => {
  const making = client.request("create", { room: "new" });
  const failed = assert.rejects(making, { code: "disconnected" });
  await reconnect();
  await failed;
  FakeSocket.last.reply("join", joined(0, { recovered: true }));
  await settle();
  assert.deepEqual(FakeSocket.last.asked("create"), []);
});

test("what was never sent waits for the next connection", async () => {
  FakeSocket.last.drop();
  client.request("create", { room: "new" });
  mock.timers.tick(20_000);
  FakeSocket.last.connected(ANN);
  await settle();
  FakeSocket.last.reply("join", joined(0, { recovered: true }));
  await settle();
  assert.equal(FakeSocket.last.asked("create").length, 1);
});

test("nothing is sent after closing, and all of it on the next connection", async () => {
  FakeSocket.last.push({ type: "closing", code: 4000, message: "", retry_in: 1 });
  client.send("lobby", "late");
  await settle();
  assert.deepEqual(said(), []);
  await reconnect();
  FakeSocket.last.reply("join", joined(0, { recovered: true }));
  await settle();
  assert.deepEqual(said(), ["late"]);
});
