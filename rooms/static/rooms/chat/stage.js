// The middle of the page: one room with its header, messages, composer and members.

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
    document.title = [room?.title, part("application-title").textContent].filter(Boolean).join(" · ");
    if (room) {
      room.unread = 0;
      this.#area.append(room.log.element);
      this.composer.text = room.draft;
      this.refresh();
      this.#scroller.toEnd();
      this.composer.focus();
    }
  }

  /** Draws everything of the room but the messages again. */
  refresh() {
    const { room } = this;
    if (!room) {
      return;
    }
    const { info, people, state } = room;
    const owner = info.owner ?? null;
    const maySend = info.you?.send ?? true;
    this.#title.textContent = room.title;
    this.#topic.textContent = [
      people.count === 1 ? "1 person" : `${people.count} people`,
      info.mode === "broadcast" && "broadcast",
    ]
      .filter(Boolean)
      .join(" · ");
    this.#memberCount.textContent = String(people.count);
    people.draw(this.#memberList, this.#me(), owner);
    this.composer.show(room.title, maySend ? null : owner ? `Only ${owner} writes here` : "You can read along here");
    this.#state.replaceChildren(
      ...[...state.values()].map(({ event, data }) =>
        element("li", {}, element("strong", {}, event), " ", element("code", {}, JSON.stringify(data))),
      ),
    );
    this.#state.hidden = state.size === 0;
    this.#beginning.hidden = room.hasOlder || room.log.oldest === null;
    this.#loading.hidden = !room.loading;
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
