// Sends messages to the room that is shown, and loads its older messages.

import { newKey } from "../client/key.js";
import { parse } from "./command.js";
import { announce, toast } from "./notifications.js";
import { answerText, errorText } from "./texts.js";

const PAGE_SIZE = 50; // older messages per request

export class Conversation {
  #client;
  #view;

  /** `view`: the RoomView. */
  constructor(client, view) {
    this.#client = client;
    this.#view = view;
  }

  /** Sends a line of input. The message is shown at once, with its delivery status. */
  send(text) {
    const { room } = this.#view;
    const key = newKey();
    const message = { ...parse(text), from: this.#client.user, time: new Date().toISOString() };
    this.#view.append(room, () => room.log.addPending(key, message), { own: true });
    this.#deliver(room, key, message);
  }

  async #deliver(room, key, { event, data }) {
    // A callback, because the promise resolves after later frames: the answer of an extension must be shown
    // before the messages that the extension then sends to the room.
    const onReply = ({ seq, time, ...answer }) => {
      const text = answerText(answer);
      room.mutedReason = null;
      this.#update(room, () => room.log.confirm(key, { seq, time, answer: text }));
      if (text !== null) {
        announce(text);
      }
    };
    try {
      await this.#client.send(room.name, data, { event, key, onReply });
    } catch (error) {
      const reason = errorText(error);
      const retry = () => {
        room.log.retry(key);
        this.#deliver(room, key, { event, data }); // the same key, so that the server stores it only once
      };
      const discard = () => room.log.discard(key);
      room.mutedReason = error.code === "muted" ? reason : room.mutedReason;
      this.#update(room, () => room.log.fail(key, reason, { retry, discard }));
      announce(`Not sent. ${reason}`);
    }
  }

  /** Updates a message, and everything around the messages, which can change the height of the log. */
  #update(room, change) {
    this.#view.append(room, () => {
      change();
      this.#view.refresh();
    });
  }

  async loadOlder() {
    const { room } = this.#view;
    if (!room?.hasOlder || room.loading) {
      return;
    }
    room.loading = true;
    this.#view.refresh();
    try {
      const range = { room: room.name, before: room.log.oldest, limit: PAGE_SIZE };
      const { messages, more } = await this.#client.request("history", range);
      room.loading = false;
      room.hasOlder = more && messages.length > 0;
      this.#view.prepend(room, () => {
        messages.forEach((message) => room.log.add(message));
        this.#view.refresh();
      });
    } catch (error) {
      room.loading = false;
      this.#view.refresh();
      toast(errorText(error));
    }
  }
}
