// The members of a room and their list.

import { avatar } from "./avatar.js";
import { element } from "./dom.js";

const identity = ({ id, guest }) => `${guest ? "guest" : "user"} ${id}`;

export class Members {
  #users = new Map();
  count = 0;

  /** Takes the members and their count from the reply to a join. */
  reset(users, count) {
    this.#users = new Map(users.map((user) => [identity(user), user]));
    this.count = count;
  }

  add(user) {
    this.count += this.#users.has(identity(user)) ? 0 : 1;
    this.#users.set(identity(user), user);
  }

  remove(user) {
    // The list of a large room is truncated, so it may lack the leaving member.
    const isTruncated = this.count > this.#users.size;
    this.count -= this.#users.delete(identity(user)) || isTruncated ? 1 : 0;
  }

  /** Applies a presence diff, which a large room sends in place of single joins and leaves. */
  applyDiff({ count, joined, left }) {
    joined.forEach((user) => this.add(user));
    left.forEach((user) => this.remove(user));
    this.count = count;
  }

  /** Draws the members into a list: `me` first, the others by name. */
  draw(list, me, owner) {
    const myIdentity = me && identity(me);
    const isMe = (user) => identity(user) === myIdentity;
    const users = [...this.#users.values()].sort(
      (one, other) => isMe(other) - isMe(one) || one.name.localeCompare(other.name),
    );
    const rows = users.map((user) => {
      const tags = [isMe(user) && "you", user.name === owner && "owner", user.guest && "guest"].filter(Boolean);
      return element(
        "li",
        { class: "member" },
        avatar(user.name),
        element(
          "div",
          { class: "member-text" },
          element("bdi", { class: "name", title: user.name }, user.name),
          tags.length ? element("span", { class: "tags" }, tags.join(", ")) : null,
        ),
      );
    });
    if (this.count > users.length) {
      rows.push(element("li", { class: "more" }, `and ${this.count - users.length} more`));
    }
    list.replaceChildren(...rows);
  }
}
