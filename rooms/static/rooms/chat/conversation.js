// What one does in the room that is shown: say something, and read what was said before.

import { newKey } from "../client/key.js";
import { toast } from "./notices.js";
import { errorText } from "./words.js";

const COMMAND = /^\/([\w.-]{1,64})(?:\s+([^]*))?$/;
const OLDER = 50; // messages fetched at once when scrolling up

export class Conversation {
  #client;
  #stage;

  constructor(client, stage) {
    this.#client = client;
    this.#stage = stage;
  }

  /** Says something; a line such as "/answer 42" is an event of that name with the rest as its data. */
  send(text) {
    const { room } = this.#stage;
    const [, event, data = null] = text.match(COMMAND) ?? [];
    if (event) {
      this.#command(room, event, data);
      return;
    }
    const key = newKey();
    const message = { event: "message", data: { text }, from: this.#client.user, time: new Date().toISOString() };
    this.#stage.appending(room, () => room.log.addPending(key, message), { own: true });
    this.#deliver(room, key, message.data);
  }

  async #command(room, event, data) {
    try {
      // What no extension takes goes to the room, and comes from there; what one answers is for us alone.
      const { seq, time, ...answer } = await this.#client.send(room.name, data, { event });
      if (Object.keys(answer).length > 0) {
        toast(`${event}: ${JSON.stringify(answer)}`);
      }
    } catch (error) {
      toast(errorText(error));
    }
  }

  async #deliver(room, key, data) {
    let change;
    try {
      const answer = await this.#client.send(room.name, data, { key });
      change = () => room.log.confirm(key, answer);
    } catch (error) {
      const retry = () => {
        room.log.retry(key);
        this.#deliver(room, key, data); // with the same key: should the server have it after all, it stays one
      };
      const discard = () => room.log.discard(key);
      change = () => room.log.fail(key, errorText(error), { retry, discard });
    }
    this.#stage.appending(room, change);
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
