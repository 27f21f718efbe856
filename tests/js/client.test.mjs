// Login, join and their recovery after a lost connection: rules 10 to 18 of docs/client-behaviour.md.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { ANN, FakeSocket, GUEST, joined, makeClient, message, runMicrotasks } from "./fakes.mjs";

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
  await runMicrotasks();
}

async function joinLobby(seq = 0, details = {}) {
  client.connect();
  FakeSocket.last.connected(ANN);
  await runMicrotasks();
  const joining = client.join("lobby");
  FakeSocket.last.reply("join", joined(seq, details));
  await joining;
}

const seqs = () => emitted("message").map(({ seq }) => seq);

test("rule 10: a signed-in user sends no login", async () => {
  client.connect();
  FakeSocket.last.connected(ANN);
  await runMicrotasks();
  assert.deepEqual(FakeSocket.last.sent, []);
  assert.deepEqual(emitted("login"), [ANN]);
});

test("rule 10: a guest logs in by name, and by token on the next connection", async () => {
  client.connect({ name: "gus" });
  FakeSocket.last.connected();
  assert.equal(FakeSocket.last.requests("login")[0].name, "gus");
  FakeSocket.last.reply("login", { user: GUEST, token: "t0k" });
  await runMicrotasks();
  assert.deepEqual(emitted("login"), [GUEST]);
  assert.equal(client.hasStoredLogin, true);
  await reconnect(null);
  assert.equal(FakeSocket.last.requests("login")[0].token, "t0k");
});

test("rule 11: the name is used after the token is refused", async () => {
  client.connect({ name: "gus" });
  FakeSocket.last.connected();
  FakeSocket.last.reply("login", { user: GUEST, token: "old" });
  await runMicrotasks();
  await reconnect(null);
  FakeSocket.last.refuse("login", "bad_token");
  await runMicrotasks();
  assert.equal(FakeSocket.last.requests("login")[1].name, "gus");
  FakeSocket.last.reply("login", { user: GUEST, token: "new" });
  await runMicrotasks();
  assert.deepEqual([...storage.values()], ["new"]);
});

test("rule 11: a ban is reported instead of the refused token", async () => {
  storage.setItem("rooms ws://x/ws/rooms/chat/", "t");
  client.connect();
  FakeSocket.last.connected();
  FakeSocket.last.refuse("login", "banned");
  await runMicrotasks();
  assert.equal(emitted("login_required")[0].code, "banned");
  assert.equal(client.hasStoredLogin, false);
});

test("rule 12: a taken name at the first login requires another name", async () => {
  client.connect({ name: "gus" });
  FakeSocket.last.connected();
  FakeSocket.last.refuse("login", "name_taken", { retry: true });
  await runMicrotasks();
  assert.equal(emitted("login_required")[0].code, "name_taken");
  assert.equal(emitted("state").at(-1).state, "idle");
});

test("rule 12: a login refused with retry is repeated on another connection", async () => {
  client.connect({ name: "gus" });
  FakeSocket.last.connected();
  FakeSocket.last.refuse("login", "unavailable", { retry: true });
  await runMicrotasks();
  assert.equal(FakeSocket.last.closedWith, 1000);
  assert.equal(emitted("state").at(-1).state, "waiting");
});

test("rule 12: a name held by the client's own lost connection is retried", async () => {
  client.connect({ name: "gus" });
  FakeSocket.last.connected();
  FakeSocket.last.reply("login", { user: GUEST, token: "t" });
  await runMicrotasks();
  storage.clear();
  await reconnect(null);
  FakeSocket.last.refuse("login", "name_taken", { retry: true });
  await runMicrotasks();
  assert.deepEqual(emitted("login_required"), []);
  assert.equal(emitted("state").at(-1).state, "waiting");
});

test("rule 11: without a login the client requires one and disconnects", async () => {
  client.connect();
  FakeSocket.last.connected();
  await runMicrotasks();
  assert.equal(emitted("login_required")[0].code, "not_logged_in");
  assert.equal(FakeSocket.last.closedWith, 1000);
});

test("rule 11: the token of an expired session is not sent again", async () => {
  client.connect({ name: "gus" });
  FakeSocket.last.connected();
  FakeSocket.last.reply("login", { user: GUEST, token: "t" });
  await runMicrotasks();
  await reconnect(null, 4005);
  assert.equal(FakeSocket.last.requests("login")[0].name, "gus");
});

test("logout deletes the login and the memberships", async () => {
  await joinLobby();
  storage.setItem("rooms ws://x/ws/rooms/chat/", "t");
  const out = client.logout();
  FakeSocket.last.reply("logout", {});
  await out;
  assert.equal(client.hasStoredLogin, false);
  assert.equal(client.user, null);
  client.connect();
  FakeSocket.last.connected(ANN);
  await runMicrotasks();
  assert.deepEqual(FakeSocket.last.requests("join"), []);
});

test("a first join is fresh and contains its messages", async () => {
  await joinLobby(2, { messages: [message(1), message(2)] });
  const [room] = emitted("room");
  assert.equal(room.fresh, true);
  assert.deepEqual(room.messages.map(({ seq }) => seq), [1, 2]);
});

test("rule 28: pushes in the same WebSocket message as the join's reply follow its position", async () => {
  client.connect();
  FakeSocket.last.connected(ANN);
  await runMicrotasks();
  client.join("lobby");
  const { id } = FakeSocket.last.requests("join")[0];
  FakeSocket.last.push({ type: "reply", id, data: joined(4) }, message(5), message(6));
  await runMicrotasks();
  assert.deepEqual(seqs(), [5, 6]);
});

test("rule 16: duplicates are dropped, unnumbered messages never", async () => {
  await joinLobby(4);
  FakeSocket.last.push(message(4), message(5), message(5), message(null), message(null));
  assert.deepEqual(seqs(), [5, null, null]);
});

test("rule 13: every room is joined again since its position", async () => {
  await joinLobby(4);
  const joining = client.join("help", { password: "p" });
  FakeSocket.last.reply("join", joined(0, { room: "help", epoch: "h" }));
  await joining;
  FakeSocket.last.push(message(5));
  await reconnect();
  const joins = FakeSocket.last.requests("join").map(({ room, password, since }) => [room, password, since]);
  assert.deepEqual(joins, [
    ["lobby", undefined, { epoch: "e", seq: 5 }],
    ["help", "p", { epoch: "h", seq: 0 }],
  ]);
});

test("rule 14: a recovered join emits each message once", async () => {
  await joinLobby(4);
  FakeSocket.last.push(message(5));
  await reconnect();
  const [join] = FakeSocket.last.requests("join");
  assert.deepEqual(join.since, { epoch: "e", seq: 5 });
  FakeSocket.last.reply("join", joined(7, { recovered: true, messages: [message(5), message(6), message(7)] }));
  FakeSocket.last.push(message(7), message(8));
  const room = emitted("room").at(-1);
  assert.equal(room.fresh, false);
  assert.deepEqual(room.messages.map(({ seq }) => seq), [6, 7]);
  assert.deepEqual(seqs(), [5, 8]);
});

test("rule 15: a join that is not recovered is fresh", async () => {
  await joinLobby(4);
  await reconnect();
  FakeSocket.last.reply("join", joined(2, { epoch: "f", messages: [message(1), message(2)] }));
  const room = emitted("room").at(-1);
  assert.equal(room.fresh, true);
  assert.equal(room.messages.length, 2);
  FakeSocket.last.push(message(3));
  assert.deepEqual(seqs(), [3]);
});

test("rule 15: a room without history keeps its earlier messages", async () => {
  await joinLobby(null);
  FakeSocket.last.push(message(null));
  await reconnect();
  assert.equal(FakeSocket.last.requests("join")[0].since, undefined);
  FakeSocket.last.reply("join", joined(null));
  assert.equal(emitted("room").at(-1).fresh, false);
});

test("rule 17: a gap is filled by a join since the position", async () => {
  await joinLobby(4);
  FakeSocket.last.push(message(7), message(8));
  assert.deepEqual(seqs(), []);
  const resume = FakeSocket.last.requests("join").slice(1);
  assert.deepEqual(resume.map(({ since }) => since), [{ epoch: "e", seq: 4 }]);
  const missing = [5, 6, 7, 8].map((seq) => message(seq));
  FakeSocket.last.reply("join", joined(8, { recovered: true, messages: missing }));
  FakeSocket.last.push(message(9));
  assert.deepEqual(emitted("room").at(-1).messages.map(({ seq }) => seq), [5, 6, 7, 8]);
  assert.deepEqual(seqs(), [9]);
});

test("rule 17: a second gap directly after the reply for the first one is filled", async () => {
  await joinLobby(4);
  FakeSocket.last.push(message(6));
  const { id } = FakeSocket.last.requests("join").at(-1);
  const data = joined(6, { recovered: true, messages: [message(5), message(6)] });
  FakeSocket.last.push({ type: "reply", id, data }, message(8));
  await runMicrotasks();
  assert.deepEqual(FakeSocket.last.requests("join").at(-1).since, { epoch: "e", seq: 6 });
});

test("rule 13: rooms left or refused are not joined again", async () => {
  await joinLobby();
  client.leave("lobby").catch(() => {});
  const secret = client.join("secret");
  FakeSocket.last.refuse("join", "bad_password");
  await assert.rejects(secret, { code: "bad_password" });
  await reconnect();
  assert.deepEqual(FakeSocket.last.requests("join"), []);
});

test("rule 18: a rejoin refused with retry is repeated without limit", async () => {
  await joinLobby(4);
  await reconnect();
  for (let attempt = 0; attempt < 20; attempt += 1) {
    FakeSocket.last.push({ type: "ping" }); // keeps the connection alive while time passes
    FakeSocket.last.refuse("join", "unavailable", { retry: true });
    await runMicrotasks();
    mock.timers.tick(30_000);
  }
  assert.equal(FakeSocket.last.requests("join").length, 21);
  FakeSocket.last.reply("join", joined(4, { recovered: true }));
  await runMicrotasks();
  assert.deepEqual(emitted("removed"), []);
});

test("rule 18: a rejoin refused for good emits removed", async () => {
  await joinLobby();
  await reconnect();
  FakeSocket.last.refuse("join", "room_not_found");
  await runMicrotasks();
  assert.equal(emitted("removed")[0].reason, "room_not_found");
});

test("rule 18: a room is not joined again after removed", async () => {
  await joinLobby();
  FakeSocket.last.push({ type: "removed", room: "lobby", reason: "kicked" });
  await reconnect();
  assert.deepEqual(FakeSocket.last.requests("join"), []);
});
