// The list of rooms: those that the application lists, and those that the user is in.

import { element, part } from "./dom.js";

export class RoomList {
  #list = part("room-list");
  #empty = part("no-rooms");
  #listed = new Map();
  #choose;

  /** `choose(name)` is called when the user picks a room. */
  constructor(choose) {
    this.#choose = choose;
  }

  reset(rooms) {
    this.#listed = new Map(rooms.map((room) => [room.name, room]));
  }

  add(room) {
    this.#listed.set(room.name, room);
  }

  remove(name) {
    this.#listed.delete(name);
  }

  title(name) {
    return this.#listed.get(name)?.title || name;
  }

  /** `rooms`: the Map of rooms that we are in. `active`: the name of the one that is shown, or null. */
  draw(rooms, active) {
    const names = [...new Set([...this.#listed.keys(), ...rooms.keys()])];
    const entries = names.map((name) => ({
      name,
      title: rooms.get(name)?.title ?? this.title(name),
      count: rooms.get(name)?.people.count ?? this.#listed.get(name)?.members ?? 0,
      unread: rooms.get(name)?.unread ?? 0,
      isIn: rooms.has(name),
    }));
    entries.sort((one, other) => one.title.localeCompare(other.title));
    const focused = this.#list.querySelector(":focus")?.dataset.room;
    this.#list.replaceChildren(...entries.map((entry) => this.#row(entry, entry.name === active)));
    // The list is drawn anew; the keyboard stays where it was.
    this.#list.querySelector(`[data-room="${CSS.escape(focused ?? "")}"]`)?.focus();
    this.#empty.hidden = entries.length > 0;
  }

  #row({ name, title, count, unread, isIn }, isActive) {
    const people = count === 1 ? "1 person" : `${count} people`;
    const news = unread ? `, ${unread} unread` : "";
    return element(
      "li",
      {},
      element(
        "button",
        {
          type: "button",
          class: `room-button${isIn ? " in" : ""}${unread ? " unread" : ""}`,
          "data-room": name,
          "aria-current": isActive && "page",
          "aria-label": `${title}, ${people}${news}`,
          title,
          click: () => this.#choose(name),
        },
        element("bdi", { class: "name" }, title),
        unread
          ? element("span", { class: "badge" }, unread > 99 ? "99+" : String(unread))
          : element("span", { class: "count" }, count ? String(count) : ""),
      ),
    );
  }
}
