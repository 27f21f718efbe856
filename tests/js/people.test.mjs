// Who is in a room, as the page is told.

import assert from "node:assert/strict";
import { test } from "node:test";

import { People } from "../../rooms/static/rooms/chat/people.js";

const user = (name) => ({ name, id: `guest-${name}`, guest: true });

function people(names, count) {
  const made = new People();
  made.reset(names.map(user), count);
  return made;
}

test("comings and goings are counted once", () => {
  const room = people(["ann", "ben"], 2);
  room.joined(user("eve"));
  room.joined(user("eve"));
  assert.equal(room.count, 3);
  room.left(user("ann"));
  room.left(user("ann"));
  assert.equal(room.count, 2);
});

test("who was not named when the list was cut short is counted out all the same", () => {
  const room = people(["ann", "ben"], 4);
  room.left(user("zoe"));
  assert.equal(room.count, 3);
  room.left(user("ben"));
  assert.equal(room.count, 2);
});

test("a digest's count holds, whoever it tells of", () => {
  const room = people(["ann", "ben"], 201);
  room.digest({ count: 202, joined: [user("eve"), user("ben")], left: [user("ann"), user("zoe")] });
  assert.equal(room.count, 202);
  room.digest({ count: 2, joined: [], left: [] });
  room.left(user("ann"));
  assert.equal(room.count, 2);
  room.left(user("eve"));
  assert.equal(room.count, 1);
});
