// The list of rooms: the listed rooms of the application and the joined rooms.

import { element, part } from "./dom.js";
import { memberCount } from "./texts.js";

export class RoomList {
  #list = part("room-list");
  #emptyText = part("no-rooms");
  #listed = new Map();
  #onSelect;

  /** `onSelect(name)` is called when the user selects a room. */
  constructor(onSelect) {
    this.#onSelect = onSelect;
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

  /** `rooms`: the JoinedRooms. `active`: the name of the room that is shown, or null. */
  draw(rooms, active) {
    const names = [...new Set([...this.#listed.keys(), ...rooms.keys()])];
    const entries = names.map((name) => ({
      name,
      title: rooms.get(name)?.title ?? this.title(name),
      count: rooms.get(name)?.members.count ?? this.#listed.get(name)?.members ?? 0,
      unread: rooms.get(name)?.unread ?? 0,
      isJoined: rooms.has(name),
    }));
    entries.sort((one, other) => one.title.localeCompare(other.title));
    const focused = this.#list.querySelector(":focus")?.dataset.room;
    this.#list.replaceChildren(...entries.map((entry) => this.#row(entry, entry.name === active)));
    // The new elements do not have the focus of the old ones.
    this.#list.querySelector(`[data-room="${CSS.escape(focused ?? "")}"]`)?.focus();
    this.#emptyText.hidden = entries.length > 0;
  }

  #row({ name, title, count, unread, isJoined }, isActive) {
    const unreadText = unread ? `, ${unread} unread` : "";
    return element(
      "li",
      {},
      element(
        "button",
        {
          type: "button",
          class: `room-button${isJoined ? " joined" : ""}${unread ? " unread" : ""}`,
          "data-room": name,
          "aria-current": isActive && "page",
          "aria-label": `${title}, ${memberCount(count)}${unreadText}`,
          title,
          click: () => this.#onSelect(name),
        },
        element("bdi", { class: "name" }, title),
        unread
          ? element("span", { class: "badge" }, unread > 99 ? "99+" : String(unread))
          : element("span", { class: "count" }, count ? String(count) : ""),
      ),
    );
  }
}
