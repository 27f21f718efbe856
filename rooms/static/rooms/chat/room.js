// What the page keeps of one room that the user is in, shown or not. Next: stage.js, which shows one.

import { MessageLog } from "./messages.js";
import { People } from "./people.js";

export class Room {
  people = new People();
  state = new Map();
  draft = "";
  unread = 0;
  hasOlder = false;
  loading = false;

  constructor(name, isOwn) {
    this.name = name;
    this.info = { name, title: name };
    this.log = new MessageLog(isOwn);
  }

  get title() {
    return this.info.title || this.name;
  }

  /** Takes a join's reply; returns whether it brought messages that were missed. */
  update({ room, members, count, state, messages, fresh }) {
    this.info = room;
    this.people.reset(members, count);
    this.state = new Map(state.map((message) => [message.event, message]));
    if (fresh) {
      this.log.reset(messages);
      this.hasOlder = (this.log.oldest ?? 1) > 1;
    } else {
      messages.forEach((message) => this.add(message));
    }
    return !fresh && messages.length > 0;
  }

  /** Takes a pushed message; returns whether it is new. */
  add(message) {
    if (message.state) {
      if (message.data === null) {
        this.state.delete(message.event);
      } else {
        this.state.set(message.event, message);
      }
    }
    return this.log.add(message);
  }
}
