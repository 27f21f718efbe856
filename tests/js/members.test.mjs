// The members of a room and their count.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Members } from "../../rooms/static/rooms/chat/members.js";

const user = (name) => ({ name, id: `guest-${name}`, guest: true });

function makeMembers(names, count) {
  const members = new Members();
  members.reset(names.map(user), count);
  return members;
}

test("repeated joins and leaves are counted once", () => {
  const members = makeMembers(["ann", "ben"], 2);
  members.add(user("eve"));
  members.add(user("eve"));
  assert.equal(members.count, 3);
  members.remove(user("ann"));
  members.remove(user("ann"));
  assert.equal(members.count, 2);
});

test("an unlisted member of a truncated list is counted when leaving", () => {
  const members = makeMembers(["ann", "ben"], 4);
  members.remove(user("zoe"));
  assert.equal(members.count, 3);
  members.remove(user("ben"));
  assert.equal(members.count, 2);
});

test("the count of a presence diff replaces the computed count", () => {
  const members = makeMembers(["ann", "ben"], 201);
  members.applyDiff({ count: 202, joined: [user("eve"), user("ben")], left: [user("ann"), user("zoe")] });
  assert.equal(members.count, 202);
  members.applyDiff({ count: 2, joined: [], left: [] });
  members.remove(user("ann"));
  assert.equal(members.count, 2);
  members.remove(user("eve"));
  assert.equal(members.count, 1);
});
