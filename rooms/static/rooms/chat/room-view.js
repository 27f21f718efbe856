// The middle of the page: one room with its header, messages, composer and members.

import { Composer } from "./composer.js";
import { element, part } from "./dom.js";
import { messageText, renderData } from "./message-view.js";
import { Scroller } from "./scroller.js";
import { memberCount } from "./texts.js";

export class RoomView {
  #log = part("log");
  #title = part("room-title");
  #topic = part("room-topic");
  #state = part("room-state");
  #beginning = part("beginning");
  #loading = part("loading-older");
  #memberCount = part("member-count");
  #memberList = part("member-list");
  #scroller;
  #getUser;
  #connection = "open";

  /** The room that is shown, or null. */
  room = null;

  /** `getUser()` returns the current user; `send(text)` and `loadOlder()` are the actions of the user. */
  constructor({ getUser, send, loadOlder }) {
    this.#getUser = getUser;
    this.composer = new Composer(send);
    this.#scroller = new Scroller(this.#log, part("jump"), loadOlder);
  }

  /** Shows a room, or none. */
  show(room) {
    if (this.room) {
      this.room.draft = this.composer.text;
    }
    this.room = room;
    part("room-view").dataset.empty = String(!room);
    this.#log.querySelector(".messages")?.remove();
    this.#updateDocumentTitle();
    if (room) {
      room.unread = 0;
      this.#log.append(room.log.element);
      this.composer.text = room.draft;
      this.refresh();
      this.#scroller.scrollToEnd();
      this.composer.focus();
    }
  }

  /** `connection`: "open", "lost" while the client reconnects, or "closed". */
  setConnection(connection) {
    this.#connection = connection;
    part("shell").dataset.connection = connection;
    this.refresh();
  }

  /** Draws everything but the messages again. */
  refresh() {
    const { room } = this;
    if (!room) {
      return;
    }
    const { info, members } = room;
    this.#updateDocumentTitle();
    this.#title.textContent = room.title;
    this.#topic.textContent = [memberCount(members.count), info.mode === "broadcast" && "broadcast"]
      .filter(Boolean)
      .join(" · ");
    this.#memberCount.textContent = String(members.count);
    members.draw(this.#memberList, this.#getUser(), info.owner ?? null);
    this.#showComposer(room);
    this.#showState([...room.state.values()]);
    this.#beginning.hidden = room.hasOlder || room.log.oldest === null;
    this.#loading.hidden = !room.loading;
  }

  #updateDocumentTitle() {
    document.title = [this.room?.title, part("application-title").textContent].filter(Boolean).join(" · ");
  }

  #showState(messages) {
    // The newest values come first, because space is limited. ISO times sort as strings.
    messages.sort((one, other) => (one.time < other.time ? 1 : -1));
    this.#state.replaceChildren(
      ...messages.map((message) => {
        // A text explains itself; other data needs the name of its event.
        const name = messageText(message) === null ? element("strong", {}, `${message.event} `) : null;
        return element("li", {}, name, renderData(message.data));
      }),
    );
    this.#state.hidden = messages.length === 0;
  }

  #showComposer({ title, info, mutedReason }) {
    if (this.#connection === "closed") {
      this.composer.show(title, "Not connected", { disabled: true });
    } else if (!(info.you?.send ?? true)) {
      const note = info.owner ? `Only ${info.owner} can send messages` : "You can only read in this room";
      this.composer.show(title, note, { disabled: true });
    } else if (this.#connection === "lost") {
      this.composer.show(title, "Offline: messages are sent later", { disabled: false });
    } else {
      this.composer.show(title, mutedReason, { disabled: false });
    }
  }

  /** Changes the end of a room's messages; `change` returns whether it added a message. */
  append(room, change, options) {
    if (room === this.room) {
      this.#scroller.append(change, options);
    } else if (change()) {
      room.unread += 1;
    }
  }

  /** Changes the beginning of a room's messages. */
  prepend(room, change) {
    if (room === this.room) {
      this.#scroller.prepend(change);
    } else {
      change();
    }
  }
}
