// What the page keeps of one room that the user is in, shown or not. Next: stage.js, which shows one.

import { endsState } from "./bubble.js";
import { MessageLog } from "./messages.js";
import { People } from "./people.js";

export class Room {
  people = new People();
  state = new Map();
  draft = "";
  unread = 0;
  hasOlder = false;
  loading = false;
  /** Why the server refused what the user last said, if the user is muted; or null. */
  muted = null;

  constructor(name, isOwn) {
    this.name = name;
    this.info = { name, title: name };
    this.log = new MessageLog(isOwn);
  }

  get title() {
    return this.info.title || this.name;
  }

  /** Takes what the list of rooms says of it; returns whether that may change what the user may do. */
  relabel({ title, mode, max_members }) {
    const same = mode === this.info.mode;
    this.info = { ...this.info, title, mode, max_members };
    return !same;
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

  /** Takes a pushed message; returns whether there is something new to see. */
  add(message) {
    if (endsState(message)) {
      this.state.delete(message.event);
    } else if (message.state) {
      this.state.set(message.event, message);
    }
    return this.log.add(message) && !endsState(message);
  }
}
