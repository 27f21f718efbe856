// Into rooms, between them and out of them; the page's address follows, so that the browser's own
// "back" works and an address can be shared.

import { askForPassword, askForRoom } from "./dialogs.js";
import { part } from "./dom.js";
import { toast } from "./notices.js";
import { errorText, removalText } from "./words.js";

function nameInAddress() {
  return new URL(location.href).searchParams.get("room");
}

function putIntoAddress(name) {
  const address = new URL(location.href);
  if (name === null) {
    address.searchParams.delete("room");
  } else {
    address.searchParams.set("room", name);
  }
  if (name !== nameInAddress()) {
    history.pushState(null, "", address);
  }
}

export class Navigation {
  #client;
  #rooms;
  #stage;
  #list;
  #drawers;

  /** `rooms`: the JoinedRooms. */
  constructor({ client, rooms, stage, list, drawers }) {
    this.#client = client;
    this.#rooms = rooms;
    this.#stage = stage;
    this.#list = list;
    this.#drawers = drawers;
    part("new-room").addEventListener("click", () => askForRoom((answers) => this.#openByName(answers)));
    part("leave-room").addEventListener("click", () => this.#leave());
    addEventListener("popstate", () => this.#follow());
  }

  /** Draws what may have changed besides the messages. */
  draw() {
    this.#list.draw(this.#rooms, this.#stage.room?.name ?? null);
    this.#stage.refresh();
  }

  /** Shows a room that we are in, or none. */
  show(name, { remember = true } = {}) {
    this.#drawers.close(); // first, since it gives the focus back
    this.#stage.show(this.#rooms.get(name) ?? null);
    if (remember) {
      putIntoAddress(name);
    }
    this.draw();
  }

  /** Into the rooms where we were before the page was loaded, but for one that is opened anyway. */
  comeBack(opened) {
    for (const name of this.#rooms.remembered()) {
      if (name !== opened && !this.#rooms.has(name)) {
        // What asks for its password again waits for the user to choose it.
        this.#client.join(name).catch(() => this.#rooms.forget(name));
      }
    }
  }

  /** We are out of a room; where it only has another name, we are back at once. */
  removed(push) {
    const { room: name, renamed } = push;
    const wasShown = this.#stage.room?.name === name;
    toast(removalText(push, this.#rooms.get(name)?.title ?? name));
    this.#rooms.delete(name);
    if (wasShown) {
      this.show(null);
    }
    if (renamed) {
      this.#list.remove(name);
    }
    this.draw();
    if (renamed && wasShown) {
      this.open(renamed);
    } else if (renamed) {
      this.#client.join(renamed).catch((error) => toast(errorText(error)));
    }
  }

  /** Shows a room, joining it if need be and asking for its password if it has one. */
  async open(name) {
    try {
      await this.#join(name);
    } catch (error) {
      if (error.code === "bad_password") {
        askForPassword(this.#list.title(name), ({ password }) => this.#join(name, password));
      } else {
        toast(errorText(error));
      }
    }
  }

  async #join(name, password = "") {
    if (!this.#rooms.has(name)) {
      await this.#client.join(name, { password: password || undefined });
    }
    this.show(name);
  }

  async #openByName({ action, room, password, mode }) {
    const name = room.trim();
    if (action === "create") {
      await this.#client.request("create", { room: name, password: password || undefined, mode });
    }
    await this.#join(name, password);
  }

  async #leave() {
    const { name } = this.#stage.room;
    this.#rooms.delete(name);
    this.show(null);
    await this.#client.leave(name).catch(() => {}); // not being in it is what was wanted
  }

  #follow() {
    const name = nameInAddress();
    if (name === null || this.#rooms.has(name)) {
      this.show(name, { remember: false });
    } else {
      this.open(name);
    }
  }
}
