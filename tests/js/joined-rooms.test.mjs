// The rooms that a tab joins again after a reload.

import assert from "node:assert/strict";
import { test } from "node:test";

import { JoinedRooms } from "../../rooms/static/rooms/chat/joined-rooms.js";
import { ANN, FakeStorage, GUEST } from "./fakes.mjs";

test("joined rooms and rooms about to be joined are stored until left", () => {
  const storage = new FakeStorage();
  const rooms = new JoinedRooms("chat", () => ANN, storage);
  rooms.set("lobby", {});
  rooms.set("help", {});
  rooms.set("lobby", {});
  rooms.storeName("late");
  rooms.delete("help");
  const reloaded = new JoinedRooms("chat", () => ANN, storage);
  assert.deepEqual(reloaded.storedNames(), ["lobby", "late"]);
  assert.equal(reloaded.size, 0);
  reloaded.set("late", {});
  reloaded.removeName("lobby");
  assert.deepEqual(reloaded.storedNames(), ["late"]);
});

test("stored names apply to one user and application, until cleared", () => {
  const storage = new FakeStorage();
  let me = ANN;
  const rooms = new JoinedRooms("chat", () => me, storage);
  rooms.set("lobby", {});
  assert.deepEqual(new JoinedRooms("quiz", () => me, storage).storedNames(), []);
  me = GUEST;
  assert.deepEqual(rooms.storedNames(), []);
  me = ANN;
  rooms.clear();
  assert.deepEqual(rooms.storedNames(), []);
});
