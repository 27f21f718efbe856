// Logging in, joining, and what happens to both when the connection is lost: rules 10 to 18 of
// docs/client-behaviour.md.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { ANN, FakeSocket, GUEST, joined, makeClient, message, settle } from "./fake.mjs";

let client;
let storage;
let emitted;

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  ({ client, storage, emitted } = makeClient());
});

async function reconnect(user = ANN, code = 1006) {
  FakeSocket.last.drop(code);
  mock.timers.tick(20_000);
  FakeSocket.last.connected(user);
  await settle();
}

async function inLobby(seq = 0, details = {}) {
  client.connect();
  FakeSocket.last.connected(ANN);
  await settle();
  const joining = client.join("lobby");
  FakeSocket.last.reply("join", joined(seq, details));
  await joining;
}

const seqs = () => emitted("message").map(({ seq }) => seq);

test("rule 10: the signed-in user needs no login", async () => {
  client.connect();
  FakeSocket.last.connected(ANN);
  await settle();
  assert.deepEqual(FakeSocket.last.sent, []);
  assert.deepEqual(emitted("login"), [ANN]);
});

test("rule 10: a guest logs in by name, and by token from then on", async () => {
  client.connect({ name: "gus" });
  FakeSocket.last.connected();
  assert.equal(FakeSocket.last.asked("login")[0].name, "gus");
  FakeSocket.last.reply("login", { user: GUEST, token: "t0k" });
  await settle();
  assert.deepEqual(emitted("login"), [GUEST]);
  assert.equal(client.remembered, true);
  await reconnect(null);
  assert.equal(FakeSocket.last.asked("login")[0].token, "t0k");
});

test("rule 11: a token that is not accepted any more gives way to the name", async () => {
  client.connect({ name: "gus" });
  FakeSocket.last.connected();
  FakeSocket.last.reply("login", { user: GUEST, token: "old" });
  await settle();
  await reconnect(null);
  FakeSocket.last.refuse("login", "bad_token");
  await settle();
  assert.equal(FakeSocket.last.asked("login")[1].name, "gus");
  FakeSocket.last.reply("login", { user: GUEST, token: "new" });
  await settle();
  assert.deepEqual([...storage.values()], ["new"]);
});

test("rule 11: who is banned hears that, and not just that the token is no good", async () => {
  storage.setItem("rooms ws://x/ws/rooms/chat/", "t");
  client.connect();
  FakeSocket.last.connected();
  FakeSocket.last.refuse("login", "banned");
  await settle();
  assert.equal(emitted("login_needed")[0].code, "banned");
  assert.equal(client.remembered, false);
});

test("rule 12: a name that is taken at first is the user's to change", async () => {
  client.connect({ name: "gus" });
  FakeSocket.last.connected();
  FakeSocket.last.refuse("login", "name_taken", { retry: true });
  await settle();
  assert.equal(emitted("login_needed")[0].code, "name_taken");
  assert.equal(emitted("state").at(-1).state, "idle");
});

test("rule 12: a login that is refused for now is tried again on another connection", async () => {
  client.connect({ name: "gus" });
  FakeSocket.last.connected();
  FakeSocket.last.refuse("login", "unavailable", { retry: true });
  await settle();
  assert.equal(FakeSocket.last.closedWith, 1000);
  assert.equal(emitted("state").at(-1).state, "waiting");
});

test("rule 12: a name that is still taken by our own lost connection is tried again", async () => {
  client.connect({ name: "gus" });
  FakeSocket.last.connected();
  FakeSocket.last.reply("login", { user: GUEST, token: "t" });
  await settle();
  storage.clear();
  await reconnect(null);
  FakeSocket.last.refuse("login", "name_taken", { retry: true });
  await settle();
  assert.deepEqual(emitted("login_needed"), []);
  assert.equal(emitted("state").at(-1).state, "waiting");
});

test("rule 11: without anything to log in with it says so and hangs up", async () => {
  client.connect();
  FakeSocket.last.connected();
  await settle();
  assert.equal(emitted("login_needed")[0].code, "not_logged_in");
  assert.equal(FakeSocket.last.closedWith, 1000);
});

test("rule 11: an expired session's token is not shown again", async () => {
  client.connect({ name: "gus" });
  FakeSocket.last.connected();
  FakeSocket.last.reply("login", { user: GUEST, token: "t" });
  await settle();
  await reconnect(null, 4005);
  assert.equal(FakeSocket.last.asked("login")[0].name, "gus");
});

test("logging out forgets everything", async () => {
  await inLobby();
  storage.setItem("rooms ws://x/ws/rooms/chat/", "t");
  const out = client.logout();
  FakeSocket.last.reply("logout", {});
  await out;
  assert.equal(client.remembered, false);
  assert.equal(client.user, null);
  client.connect();
  FakeSocket.last.connected(ANN);
  await settle();
  assert.deepEqual(FakeSocket.last.asked("join"), []);
});

test("a first join is fresh and brings its messages", async () => {
  await inLobby(2, { messages: [message(1), message(2)] });
  const [room] = emitted("room");
  assert.equal(room.fresh, true);
  assert.deepEqual(room.messages.map(({ seq }) => seq), [1, 2]);
});

test("rule 28: pushes in the same piece as the join's reply count from its position", async () => {
  client.connect();
  FakeSocket.last.connected(ANN);
  await settle();
  client.join("lobby");
  const { id } = FakeSocket.last.asked("join")[0];
  FakeSocket.last.push({ type: "reply", id, data: joined(4) }, message(5), message(6));
  await settle();
  assert.deepEqual(seqs(), [5, 6]);
});

test("rule 16: messages seen already are dropped, unnumbered ones never", async () => {
  await inLobby(4);
  FakeSocket.last.push(message(4), message(5), message(5), message(null), message(null));
  assert.deepEqual(seqs(), [5, null, null]);
});

test("rule 13: every room is joined again, from where it stood", async () => {
  await inLobby(4);
  const joining = client.join("help", { password: "p" });
  FakeSocket.last.reply("join", joined(0, { room: "help", epoch: "h" }));
  await joining;
  FakeSocket.last.push(message(5));
  await reconnect();
  const joins = FakeSocket.last.asked("join").map(({ room, password, since }) => [room, password, since]);
  assert.deepEqual(joins, [
    ["lobby", undefined, { epoch: "e", seq: 5 }],
    ["help", "p", { epoch: "h", seq: 0 }],
  ]);
});

test("rule 14: resumes where it stood, without repeating anything", async () => {
  await inLobby(4);
  FakeSocket.last.push(message(5));
  await reconnect();
  const [join] = FakeSocket.last.asked("join");
  assert.deepEqual(join.since, { epoch: "e", seq: 5 });
  FakeSocket.last.reply("join", joined(7, { recovered: true, messages: [message(5), message(6), message(7)] }));
  FakeSocket.last.push(message(7), message(8));
  const room = emitted("room").at(-1);
  assert.equal(room.fresh, false);
  assert.deepEqual(room.messages.map(({ seq }) => seq), [6, 7]);
  assert.deepEqual(seqs(), [5, 8]);
});

test("rule 15: a place that is lost makes the room fresh", async () => {
  await inLobby(4);
  await reconnect();
  FakeSocket.last.reply("join", joined(2, { epoch: "f", messages: [message(1), message(2)] }));
  const room = emitted("room").at(-1);
  assert.equal(room.fresh, true);
  assert.equal(room.messages.length, 2);
  FakeSocket.last.push(message(3));
  assert.deepEqual(seqs(), [3]);
});

test("rule 15: a room without history keeps what was seen of it", async () => {
  await inLobby(null);
  FakeSocket.last.push(message(null));
  await reconnect();
  assert.equal(FakeSocket.last.asked("join")[0].since, undefined);
  FakeSocket.last.reply("join", joined(null));
  assert.equal(emitted("room").at(-1).fresh, false);
});

test("rule 17: a gap is filled by resuming", async () => {
  await inLobby(4);
  FakeSocket.last.push(message(7), message(8));
  assert.deepEqual(seqs(), []);
  const resume = FakeSocket.last.asked("join").slice(1);
  assert.deepEqual(resume.map(({ since }) => since), [{ epoch: "e", seq: 4 }]);
  const missing = [5, 6, 7, 8].map((seq) => message(seq));
  FakeSocket.last.reply("join", joined(8, { recovered: true, messages: missing }));
  FakeSocket.last.push(message(9));
  assert.deepEqual(emitted("room").at(-1).messages.map(({ seq }) => seq), [5, 6, 7, 8]);
  assert.deepEqual(seqs(), [9]);
});

test("rule 17: a second gap right behind the reply that filled the first one is filled as well", async () => {
  await inLobby(4);
  FakeSocket.last.push(message(6));
  const { id } = FakeSocket.last.asked("join").at(-1);
  const data = joined(6, { recovered: true, messages: [message(5), message(6)] });
  FakeSocket.last.push({ type: "reply", id, data }, message(8));
  await settle();
  assert.deepEqual(FakeSocket.last.asked("join").at(-1).since, { epoch: "e", seq: 6 });
});

test("rule 13: rooms left or refused are not joined again", async () => {
  await inLobby();
  client.leave("lobby").catch(() => {});
  const secret = client.join("secret");
  FakeSocket.last.refuse("join", "bad_password");
  await assert.rejects(secret, { code: "bad_password" });
  await reconnect();
  assert.deepEqual(FakeSocket.last.asked("join"), []);
});

test("rule 18: a room that cannot be had for now is asked for as long as it takes", async () => {
  await inLobby(4);
  await reconnect();
  for (let attempt = 0; attempt < 20; attempt += 1) {
    FakeSocket.last.push({ type: "ping" }); // keeps the connection alive while time passes
    FakeSocket.last.refuse("join", "unavailable", { retry: true });
    await settle();
    mock.timers.tick(30_000);
  }
  assert.equal(FakeSocket.last.asked("join").length, 21);
  FakeSocket.last.reply("join", joined(4, { recovered: true }));
  await settle();
  assert.deepEqual(emitted("removed"), []);
});

test("rule 18: a room that is gone after the reconnect is told as removed", async () => {
  await inLobby();
  await reconnect();
  FakeSocket.last.refuse("join", "room_not_found");
  await settle();
  assert.equal(emitted("removed")[0].reason, "room_not_found");
});

test("rule 18: a room one was removed from is not joined again", async () => {
  await inLobby();
  FakeSocket.last.push({ type: "removed", room: "lobby", reason: "kicked" });
  await reconnect();
  assert.deepEqual(FakeSocket.last.asked("join"), []);
});
