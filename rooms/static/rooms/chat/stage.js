// The middle of the page: one room with its header, messages, composer and members.

import { value, wordsOf } from "./bubble.js";
import { Composer } from "./composer.js";
import { element, part } from "./dom.js";
import { Scroller } from "./scroller.js";

export class Stage {
  #area = part("log");
  #title = part("room-title");
  #topic = part("room-topic");
  #state = part("room-state");
  #beginning = part("beginning");
  #loading = part("loading-older");
  #memberCount = part("member-count");
  #memberList = part("member-list");
  #scroller;
  #me;
  #connection = "here";

  /** The room that is shown, or null. */
  room = null;

  /** `me()` tells who we are; `send(text)` and `older()` do what the user wants. */
  constructor({ me, send, older }) {
    this.#me = me;
    this.composer = new Composer(send);
    this.#scroller = new Scroller(this.#area, part("jump"), older);
  }

  /** Puts a room on the stage, or clears it. */
  show(room) {
    if (this.room) {
      this.room.draft = this.composer.text;
    }
    this.room = room;
    part("stage").dataset.empty = String(!room);
    this.#area.querySelector(".messages")?.remove();
    this.#nameWindow();
    if (room) {
      room.unread = 0;
      this.#area.append(room.log.element);
      this.composer.text = room.draft;
      this.refresh();
      this.#scroller.toEnd();
      this.composer.focus();
    }
  }

  /** `connection`: "here", "lost" as long as it may come back, or "ended". */
  connected(connection) {
    this.#connection = connection;
    part("shell").dataset.connection = connection;
    this.refresh();
  }

  /** Draws everything of the room but the messages again. */
  refresh() {
    const { room } = this;
    if (!room) {
      return;
    }
    const { info, people } = room;
    this.#nameWindow();
    this.#title.textContent = room.title;
    this.#topic.textContent = [
      people.count === 1 ? "1 person" : `${people.count} people`,
      info.mode === "broadcast" && "broadcast",
    ]
      .filter(Boolean)
      .join(" · ");
    this.#memberCount.textContent = String(people.count);
    people.draw(this.#memberList, this.#me(), info.owner ?? null);
    this.#showComposer(room);
    this.#showState([...room.state.values()]);
    this.#beginning.hidden = room.hasOlder || room.log.oldest === null;
    this.#loading.hidden = !room.loading;
  }

  #nameWindow() {
    document.title = [this.room?.title, part("application-title").textContent].filter(Boolean).join(" · ");
  }

  #showState(messages) {
    // The newest first, since there is little space. Times sort as the texts that they are.
    messages.sort((one, other) => (one.time < other.time ? 1 : -1));
    this.#state.replaceChildren(
      ...messages.map((message) => {
        // The server's words explain themselves; anything else needs its name.
        const name = wordsOf(message) === null ? element("strong", {}, `${message.event} `) : null;
        return element("li", {}, name, value(message.data));
      }),
    );
    this.#state.hidden = messages.length === 0;
  }

  #showComposer({ title, info, muted }) {
    if (this.#connection === "ended") {
      this.composer.show(title, "Not connected", { closed: true });
    } else if (!(info.you?.send ?? true)) {
      const note = info.owner ? `Only ${info.owner} writes here` : "You can read along here";
      this.composer.show(title, note, { closed: true });
    } else if (this.#connection === "lost") {
      this.composer.show(title, "Offline: what you write is sent later", { closed: false });
    } else {
      this.composer.show(title, muted, { closed: false });
    }
  }

  /** Changes a room's newest messages; `change` returns whether something was added. */
  appending(room, change, options) {
    if (room === this.room) {
      this.#scroller.appending(change, options);
    } else if (change()) {
      room.unread += 1;
    }
  }

  /** Changes the beginning of a room's messages. */
  prepending(room, change) {
    if (room === this.room) {
      this.#scroller.prepending(change);
    } else {
      change();
    }
  }
}
