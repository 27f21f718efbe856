// Who is in a room. Next: room.js, which keeps one of these for each room.

import { avatar } from "./avatar.js";
import { element } from "./dom.js";

const identity = ({ id, guest }) => `${guest ? "guest" : "user"} ${id}`;

export class People {
  #members = new Map();
  count = 0;

  /** The members and their number as a join's reply tells them. */
  reset(members, count) {
    this.#members = new Map(members.map((user) => [identity(user), user]));
    this.count = count;
  }

  joined(user) {
    this.count += this.#members.has(identity(user)) ? 0 : 1;
    this.#members.set(identity(user), user);
  }

  left(user) {
    // Where the list was cut short there are people whom it does not name.
    const unnamed = this.count > this.#members.size;
    this.count -= this.#members.delete(identity(user)) || unnamed ? 1 : 0;
  }

  /** What a large room tells instead of every single joined and left. */
  digest({ count, joined, left }) {
    joined.forEach((user) => this.joined(user));
    left.forEach((user) => this.left(user));
    this.count = count;
  }

  /** Draws them into a list: ourselves first, then by name. */
  draw(list, me, owner) {
    const mine = me && identity(me);
    const isMe = (user) => identity(user) === mine;
    const users = [...this.#members.values()].sort(
      (one, other) => isMe(other) - isMe(one) || one.name.localeCompare(other.name),
    );
    const rows = users.map((user) => {
      const tags = [isMe(user) && "you", user.name === owner && "owner", user.guest && "guest"].filter(Boolean);
      return element(
        "li",
        { class: "person" },
        avatar(user.name),
        element(
          "div",
          { class: "person-words" },
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
