// The rooms that a tab comes back to after a reload.

import assert from "node:assert/strict";
import { test } from "node:test";

import { JoinedRooms } from "../../rooms/static/rooms/chat/joined.js";
import { ANN, FakeStorage, GUEST } from "./fake.mjs";

test("all rooms are remembered, those on the way in too, until left", () => {
  const storage = new FakeStorage();
  const rooms = new JoinedRooms("chat", () => ANN, storage);
  rooms.set("lobby", {});
  rooms.set("help", {});
  rooms.set("lobby", {});
  rooms.remember("late");
  rooms.delete("help");
  const reloaded = new JoinedRooms("chat", () => ANN, storage);
  assert.deepEqual(reloaded.remembered(), ["lobby", "late"]);
  assert.equal(reloaded.size, 0);
  reloaded.set("late", {});
  reloaded.forget("lobby");
  assert.deepEqual(reloaded.remembered(), ["late"]);
});

test("the next user, another application and who has left the chat begin anew", () => {
  const storage = new FakeStorage();
  let me = ANN;
  const rooms = new JoinedRooms("chat", () => me, storage);
  rooms.set("lobby", {});
  assert.deepEqual(new JoinedRooms("quiz", () => me, storage).remembered(), []);
  me = GUEST;
  assert.deepEqual(rooms.remembered(), []);
  me = ANN;
  rooms.clear();
  assert.deepEqual(rooms.remembered(), []);
});
