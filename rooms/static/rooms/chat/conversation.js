// What one does in the room that is shown: say something, and read what was said before.

import { newKey } from "../client/key.js";
import { parse } from "./command.js";
import { announce, toast } from "./notices.js";
import { answerText, errorText } from "./words.js";

const OLDER = 50; // messages fetched at once when scrolling up

export class Conversation {
  #client;
  #stage;

  constructor(client, stage) {
    this.#client = client;
    this.#stage = stage;
  }

  /** Says what was written; what becomes of it is shown where it stands. */
  send(text) {
    const { room } = this.#stage;
    const key = newKey();
    const message = { ...parse(text), from: this.#client.user, time: new Date().toISOString() };
    this.#stage.appending(room, () => room.log.addPending(key, message), { own: true });
    this.#deliver(room, key, message);
  }

  async #deliver(room, key, { event, data }) {
    // At once and not by the promise: what an extension answers comes before what it then says to the room.
    const onReply = ({ seq, time, ...answer }) => {
      const words = answerText(answer);
      room.muted = null;
      this.#change(room, () => room.log.confirm(key, { seq, time, words }));
      if (words !== null) {
        announce(words);
      }
    };
    try {
      await this.#client.send(room.name, data, { event, key, onReply });
    } catch (error) {
      const reason = errorText(error);
      const retry = () => {
        room.log.retry(key);
        this.#deliver(room, key, { event, data }); // with the same key: should the server have it, it stays one
      };
      const discard = () => room.log.discard(key);
      room.muted = error.code === "muted" ? reason : room.muted;
      this.#change(room, () => room.log.fail(key, reason, { retry, discard }));
      announce(`Not sent. ${reason}`);
    }
  }

  /** Changes what we said; what stands around the messages may follow from it, and takes its place too. */
  #change(room, change) {
    this.#stage.appending(room, () => {
      change();
      this.#stage.refresh();
    });
  }

  async older() {
    const { room } = this.#stage;
    if (!room?.hasOlder || room.loading) {
      return;
    }
    room.loading = true;
    this.#stage.refresh();
    try {
      const range = { room: room.name, before: room.log.oldest, limit: OLDER };
      const { messages, more } = await this.#client.request("history", range);
      room.loading = false;
      room.hasOlder = more && messages.length > 0;
      this.#stage.prepending(room, () => {
        messages.forEach((message) => room.log.add(message));
        this.#stage.refresh();
      });
    } catch (error) {
      room.loading = false;
      this.#stage.refresh();
      toast(errorText(error));
    }
  }
}
