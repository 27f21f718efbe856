// Joins, opens and leaves rooms. The address of the page names the room that is shown, so that the browser's
// back button works and the address can be shared.

import { openPasswordDialog, openRoomDialog } from "./dialogs.js";
import { part } from "./dom.js";
import { toast } from "./notifications.js";
import { errorText, removalText } from "./texts.js";

function roomInAddress() {
  return new URL(location.href).searchParams.get("room");
}

function pushAddress(name) {
  const address = new URL(location.href);
  if (name === null) {
    address.searchParams.delete("room");
  } else {
    address.searchParams.set("room", name);
  }
  if (name !== roomInAddress()) {
    history.pushState(null, "", address);
  }
}

export class Navigation {
  #client;
  #rooms;
  #view;
  #list;
  #drawers;

  /** `rooms`: the JoinedRooms; `view`: the RoomView; `list`: the RoomList. */
  constructor({ client, rooms, view, list, drawers }) {
    this.#client = client;
    this.#rooms = rooms;
    this.#view = view;
    this.#list = list;
    this.#drawers = drawers;
    part("new-room").addEventListener("click", () => openRoomDialog((fields) => this.#openByName(fields)));
    part("leave-room").addEventListener("click", () => this.#leave());
    addEventListener("popstate", () => this.#followAddress());
  }

  /** Draws everything but the messages again. */
  refresh() {
    this.#list.draw(this.#rooms, this.#view.room?.name ?? null);
    this.#view.refresh();
  }

  /** Shows a joined room, or none. */
  show(name, { updateAddress = true } = {}) {
    this.#drawers.close(); // first, because it restores the focus
    this.#view.show(this.#rooms.get(name) ?? null);
    if (updateAddress) {
      pushAddress(name);
    }
    this.refresh();
  }

  /** Joins the rooms that were joined before the page was loaded, except `opened`, which is joined anyway. */
  rejoinStored(opened) {
    for (const name of this.#rooms.storedNames()) {
      if (name !== opened && !this.#rooms.has(name)) {
        // A room that requires its password again waits until the user chooses it.
        this.#client.join(name).catch(() => this.#rooms.removeName(name));
      }
    }
  }

  /** Handles the removal of the user from a room; a renamed room is joined again at once. */
  handleRemoved(push) {
    const { room: name, renamed } = push;
    const wasShown = this.#view.room?.name === name;
    toast(removalText(push, this.#rooms.get(name)?.title ?? name));
    this.#rooms.delete(name);
    if (wasShown) {
      this.show(null);
    }
    if (renamed) {
      this.#list.remove(name);
    }
    this.refresh();
    if (renamed && wasShown) {
      this.open(renamed);
    } else if (renamed) {
      this.#client.join(renamed).catch((error) => toast(errorText(error)));
    }
  }

  /** Shows a room. Joins it first if necessary, and asks for its password if it has one. */
  async open(name) {
    try {
      await this.#join(name);
    } catch (error) {
      if (error.code === "bad_password") {
        openPasswordDialog(this.#list.title(name), ({ password }) => this.#join(name, password));
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
    const { name } = this.#view.room;
    this.#rooms.delete(name);
    this.show(null);
    await this.#client.leave(name).catch(() => {}); // fails only if the user has already left
  }

  #followAddress() {
    const name = roomInAddress();
    if (name === null || this.#rooms.has(name)) {
      this.show(name, { updateAddress: false });
    } else {
      this.open(name);
    }
  }
}
